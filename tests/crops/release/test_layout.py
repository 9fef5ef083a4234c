"""What lies in a release: named once, sealed, and refused where a file is not what was listed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crops.errors import InputError
from crops.release import layout
from crops.tables import folders

ROOT = Path(__file__).resolve().parents[3]
NAMES = sorted(
    value
    for name, value in vars(layout).items()
    if name.isupper() and isinstance(value, str) and "." in value and not value.startswith(".")
)


@pytest.fixture
def release(tmp_path):
    """A sealed folder with a table and an encoder whose weights lie beside it."""
    folder = tmp_path / "release"
    (folder / "documents").mkdir(parents=True)
    for name in (*layout.ENCODER_FILES, "query_encoder.onnx.data", "documents/part-0.parquet"):
        (folder / name).write_text(name)
    layout.seal(folder)
    return folder


def test_the_files_of_a_release_are_named_in_one_module():
    assert len(NAMES) > 8
    literals = re.compile("|".join(f'"{re.escape(name)}"' for name in NAMES))
    sources = [
        p for part in ("crops", "serving", "components", "pipelines") for p in (ROOT / part).rglob("*.py")
    ]
    assert sources
    spelt = {
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in sources
        if path.name != "layout.py"
        for found in [literals.search(path.read_text(encoding="utf-8"))]
        if found
    }
    assert not spelt
    hashes = [
        p for p in sources if re.search(r"file_digest|sha256\(\).*\n.*read\(", p.read_text(encoding="utf-8"))
    ]
    assert [path.name for path in hashes] == ["layout.py"], "one sha256 of a file in the tree"


def test_serving_can_read_it_without_torch_or_mlflow():
    code = (
        "import sys, crops.release.layout; print({'torch', 'mlflow', 'pyarrow', 'faiss'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_a_sealed_release_lists_every_file_and_passes(release):
    assert set(layout.listed(release)) == {
        *layout.ENCODER_FILES,
        "query_encoder.onnx.data",
        "documents/part-0.parquet",
    }
    checksum = layout.checksum(release)
    assert layout.problem(release, checksum) is None
    assert layout.seal(release) == checksum, "the seal is not part of what it seals"
    for name in (folders.TASK, layout.LOADED):
        (release / name).write_text("{}")
    (release / "documents/.part-1.parquet.0a1b2c3d.partial").write_text("what a killed copy left")
    assert layout.problem(release, checksum) is None


@pytest.mark.parametrize(
    "name",
    ["documents/evil.parquet", "query_encoder.onnx.more", "documents/x.partial", "a/b", "documents/.hidden"],
)
def test_a_file_that_is_not_listed_is_refused_by_its_name(release, name):
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_text("x")
    with pytest.raises(InputError, match=re.escape(f"{name} is not listed in checksums.json")):
        layout.check(release, wanted=layout.of_encoder)


def test_a_link_to_a_folder_is_refused(release, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/evil.parquet").write_text("x")
    (release / "documents/more").symlink_to(tmp_path / "outside")
    assert layout.problem(release) == "documents/more is not listed in checksums.json"


def test_what_differs_is_missing_or_lies_outside_is_refused(release, tmp_path):
    data = release / "documents/part-0.parquet"
    data.write_text("other")
    assert layout.problem(release) == "documents/part-0.parquet is not what was registered"
    assert layout.problem(release, wanted=layout.of_encoder) is None, "only what is wanted is read"
    data.unlink()
    assert layout.problem(release) == "documents/part-0.parquet is not what was registered"
    (tmp_path / "part").write_text("documents/part-0.parquet")
    data.symlink_to(tmp_path / "part")
    assert layout.problem(release) == "documents/part-0.parquet is not what was registered"
    assert layout.problem(release, "0" * 64) == "checksums.json is not what was registered"
    (release / layout.CHECKSUMS).unlink()
    assert layout.problem(release) == "checksums.json is not what was registered"


def test_an_encoder_of_a_release_is_not_opened_with_weights_that_are_not_listed(release):
    from crops.release.encoder import OnnxEncoder

    (release / "query_encoder.onnx.more").write_text("x")
    with pytest.raises(InputError, match=r"query_encoder\.onnx\.more is not listed"):
        OnnxEncoder(release)
    listed = json.loads((release / layout.CHECKSUMS).read_text())
    assert "query_encoder.onnx.more" not in listed


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": null}'])
def test_a_list_that_is_half_written_is_named(release, text):
    (release / "checksums.json").write_text(text)
    with pytest.raises(InputError, match=r"checksums\.json: "):
        layout.check(release)
