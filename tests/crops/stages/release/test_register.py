"""Export, index and register as one release: the probes come back to the digit, aliases have one winner, and
a registration that was killed leaves no version. One MLflow registry per test module, because MLflow alone
takes seconds to load.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.errors import InputError, ServiceError
from crops.release import index as indexes
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.services import mlmodel
from crops.services.registry import Registry, client_of, uri_of
from crops.stages.release import baseline, champion, export, index, register
from crops.tables import artifacts, folders
from tests import shared
from tests.crops.stages import toy_release as toy

CFG = RegisterConfig(probes=8, max_training_pairs=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A champion registered by `baseline` (seed 0) and everything for a challenger (seed 1)."""
    root = tmp_path_factory.mktemp("release")
    mined = toy.mined(root / "mined")
    origins = [
        {"query": f"subject{t}", "doc_id": toy.doc(t, n), "perspective": p}
        for t in range(toy.TOPICS)
        for n, p in enumerate(("click", "feed", "exposed"))
    ]
    toy.write(root / "samples", ORIGINS=origins)
    for seed, name in enumerate(("clicks", "crops")):
        toy.trained(root / name, seed=seed)
        export.run(root / name, root / f"{name}-onnx", ExportConfig())
        index.run(root / f"{name}-onnx", mined, root / f"{name}-index", IndexConfig())
    uri = shared.new_registry(root / "registry")
    baseline.run(*parts(root, "clicks"), root / "baseline", CFG, registry=uri)
    return root, uri


def parts(root, name):
    return root / f"{name}-onnx", root / f"{name}-index", root / "mined", root / "samples"


def versions(uri):
    with client_of(uri) as client:
        return sorted(int(v.version) for v in client.search_model_versions("name='crops'"))


def test_a_downloaded_release_is_whole_and_encodes_its_probes(made, tmp_path):
    root, uri = made
    about = artifacts.read_json(root / "baseline" / "release.json")
    assert (about["alias"], about["uri"], Registry(uri, "crops").holder("champion")) == (
        "champion",
        "models:/crops/1",
        "1",
    )
    release = Registry(uri, "crops").download("1", tmp_path / "release")
    probes = artifacts.read_json(release / "fingerprint.json")
    assert probes["queries"] == [f"subject{t}" for t in range(8)]
    np.testing.assert_allclose(OnnxEncoder(release).encode(probes["queries"]), probes["vectors"], atol=2e-6)
    listed = artifacts.read_json(release / "checksums.json")
    files = {p.relative_to(release).as_posix() for p in release.rglob("*") if p.is_file()}
    assert files == {*listed, "checksums.json"}
    assert {
        "documents/part-0.parquet",
        "query_encoder.onnx",
        "tokenizer.json",
        "index.faiss",
        "MODEL_CARD.md",
    } <= files
    facts = artifacts.read_json(release / "index.json")
    ids = tuple(pq.read_table(release / "doc_ids.parquet")["doc_id"].to_pylist())
    loaded = indexes.load(release / "index.faiss", ids, checksum=facts["sha256"], width=facts["width"])
    rows = loaded.search(OnnxEncoder(release).encode(["subject3"]), 5)[1][0]
    assert all(ids[r].startswith("v03") for r in rows)
    kept = pq.read_table(release / "training_pairs.parquet").to_pylist()
    assert [(r["query"], r["perspective"]) for r in kept] == [
        ("subject0", "click"),
        ("subject0", "feed"),
        ("subject1", "click"),
        ("subject1", "feed"),
        ("subject2", "click"),
    ]


def test_mlflow_loads_the_release_without_us_and_predicts_what_serving_encodes(made, tmp_path, monkeypatch):
    """By MLflow's own loader and sentence-transformers; the signature refuses what is no list of texts."""
    pytest.importorskip("sentence_transformers")
    import mlflow

    _root, uri = made
    release = Registry(uri, "crops").download("1", tmp_path / "release")
    served = OnnxEncoder(release)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    model = mlflow.pyfunc.load_model("models:/crops/1")
    asked = ["Subject3", "part2  subject5", "红烧肉"]
    vectors = np.asarray(model.predict(asked))
    assert (vectors * served.encode(asked)).sum(axis=1).min() >= 0.9999
    assert model.input_example == mlmodel.EXAMPLE
    assert model.metadata.signature.outputs.inputs[0].shape == (-1, vectors.shape[1])
    with pytest.raises(mlflow.exceptions.MlflowException, match="schema"):
        model.predict([[1.5]])
    needed = Path(mlflow.pyfunc.get_model_dependencies("models:/crops/1")).read_text()
    assert {line.partition("==")[0] for line in needed.split()} == set(mlmodel.NEEDS)
    moved = release.rename(tmp_path / "elsewhere")
    again = np.asarray(mlflow.pyfunc.load_model(str(moved)).predict(asked))
    np.testing.assert_allclose(again, vectors, atol=1e-6)


def test_the_cards_first_lines_are_hugging_faces_and_its_snippet_runs(made, tmp_path, monkeypatch):
    from huggingface_hub import ModelCard

    _root, uri = made
    release = Registry(uri, "crops").download("1", tmp_path / "release")
    card = ModelCard.load(release / "MODEL_CARD.md")
    assert (card.data.library_name, card.data.license) == ("sentence-transformers", "other")
    assert f"| documents | {len(toy.DOCUMENTS)} |" in card.text
    assert f"| pairs: click | {toy.TOPICS} |" in card.text
    pytest.importorskip("sentence_transformers")
    monkeypatch.chdir(release)
    names = {}
    exec(card.text.partition("```python\n")[2].partition("```")[0], names)
    expected = OnnxEncoder(release).encode(["sour dough bread"])
    np.testing.assert_allclose(names["vectors"], expected, atol=1e-4)


def test_the_champion_comes_to_disk_and_none_is_an_empty_folder(made, tmp_path):
    _root, uri = made
    champion.run(tmp_path / "held", CFG, registry=uri)
    assert (tmp_path / "held" / "query_encoder.onnx").is_file()
    report = champion.run(tmp_path / "none", CFG, registry=uri_of(tmp_path / "empty"))
    # Nothing but the mark by which the folder is known as ours.
    found = [p.name for p in (tmp_path / "none").iterdir()]
    assert (report.numbers["champion_found"], found) == (0, [folders.MARK])


def test_a_second_first_champion_is_refused_and_the_same_one_is_no_second(made, tmp_path):
    """Started again, baseline finds its own version and ends the same; another release cannot take the alias
    unseen.
    """
    root, uri = made
    baseline.run(*parts(root, "clicks"), tmp_path / "again", CFG, registry=uri)
    assert artifacts.read_json(tmp_path / "again" / "release.json")["version"] == "1"
    with pytest.raises(ServiceError, match="alias champion points to version 1, expected None"):
        baseline.run(*parts(root, "crops"), tmp_path / "other", CFG, registry=uri)
    assert Registry(uri, "crops").holder("champion") == "1"
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("verdict", ["reject", "unknown"])
def test_what_the_gate_does_not_promote_is_not_registered(made, tmp_path, verdict):
    root, uri = made
    before = versions(uri)
    (tmp_path / "gate").mkdir()
    artifacts.write_json(tmp_path / "gate" / "verdict.json", {"verdict": verdict, "reasons": ["because"]})
    register.run(*parts(root, "crops"), tmp_path / "out", CFG, registry=uri, verdict=tmp_path / "gate")
    assert artifacts.read_json(tmp_path / "out" / "release.json") == {
        "uri": None,
        "reason": f"the gate says {verdict}",
    }
    assert versions(uri) == before


def test_two_processes_race_for_an_alias_and_one_wins(made):
    root, uri = made
    Registry(uri, "crops").register(root / "clicks-onnx", tags={"checksums": "x"})
    code = """
import sys
from crops.errors import ServiceError
from crops.services import mlmodel
from crops.services.registry import Registry
models = Registry(sys.argv[1], "crops")
models.holder("challenger")
print("ready", flush=True); sys.stdin.readline()
try: models.move("challenger", sys.argv[2], expected=None, reason="race"); print("won")
except ServiceError as error: print("lost", error)
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, uri, v],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )
        for v in ("1", "2")
    ]
    assert [c.stdout.readline() for c in children] == ["ready\n"] * 2
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    said = [c.communicate(timeout=120)[0].split()[0] for c in children]
    assert sorted(said) == ["lost", "won"]
    winner = str(said.index("won") + 1)
    assert Registry(uri, "crops").holder("challenger") == winner
    with client_of(uri) as client:
        assert client.get_model_version("crops", winner).tags["alias.challenger"] == "from nothing: race"


def test_a_killed_registration_leaves_no_version_and_is_made_up(made, tmp_path):
    """SIGKILL once the files are uploaded and before the version is made; then the same command."""
    root, uri = made
    before = versions(uri)
    code = f"""
import os, pathlib, signal
import mlflow
from crops.config.register import RegisterConfig
from crops.stages.release import register
mlflow.MlflowClient.create_model_version = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
root = pathlib.Path({str(root)!r})
cfg = RegisterConfig.from_json({CFG.model_dump_json()!r})
register.run(root / "crops-onnx", root / "crops-index", root / "mined", root / "samples",
             pathlib.Path({str(tmp_path / "out")!r}), cfg, registry={uri!r})
"""
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "."}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert versions(uri) == before
    assert not (tmp_path / "out").exists()
    register.run(*parts(root, "crops"), tmp_path / "out", CFG, registry=uri)
    version = artifacts.read_json(tmp_path / "out" / "release.json")["version"]
    assert versions(uri) == [*before, int(version)]
    assert Registry(uri, "crops").holder("challenger") == version
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_damaged_release_is_refused(made, tmp_path):
    _root, uri = made
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("a")
    artifacts.write_json(folder / "checksums.json", {"a": "0" * 64})
    version = Registry(uri, "damaged").register(folder, tags={"checksums": layout.checksum(folder)})
    with pytest.raises(ServiceError, match="damaged version 1: a is not what was registered"):
        Registry(uri, "damaged").download(version, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("first", ["holder('champion')", "download('1', out)"])
def test_mlflow_reports_nothing(made, tmp_path, first):
    """Whatever is asked of it first, in a process of its own: MLflow decides when it is imported, and is
    silent in a CI.
    """
    code = (
        "from pathlib import Path; from crops.services.registry import Registry; uri, out = "
        f"{made[1]!r}, Path({str(tmp_path / 'out')!r})\n"
        f"Registry(uri, 'crops').{first}\n"
        "from mlflow.telemetry.client import get_telemetry_client; print('reports to', "
        "get_telemetry_client())"
    )
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "reports to None" in done.stdout, done.stdout + done.stderr


def test_a_registry_that_cannot_be_reached_is_one_line():
    with pytest.raises(ServiceError, match="the registry says") as raised:
        Registry("http://127.0.0.1:9", "crops").holder("champion")
    assert "\n" not in str(raised.value)


def test_an_empty_catalogue_is_not_indexed(made, tmp_path):
    root, _uri = made
    empty = toy.write(tmp_path / "mined", DOCUMENTS=[])
    with pytest.raises(InputError, match="no document"):
        index.run(root / "crops-onnx", empty, tmp_path / "out", IndexConfig())


def test_what_few_users_typed_is_in_no_file_of_a_release(tmp_path):
    """Every query of the toy log that fewer than five users typed, looked for in all that is registered."""
    root = tmp_path
    parts_of = (root / "onnx", root / "index", toy.mined(root / "mined"), root / "samples")
    names = {row["query"] for row in toy.queries()}
    toy.write(
        root / "samples",
        ORIGINS=[{"query": q, "doc_id": toy.doc(0, 0), "perspective": "click"} for q in sorted(names)],
    )
    toy.trained(root / "trained")
    export.run(root / "trained", root / "onnx", ExportConfig())
    index.run(root / "onnx", root / "mined", root / "index", IndexConfig())
    for least, kept in ((5, 12), (2, 24)):
        (release := root / f"release-{least}").mkdir()
        cfg = RegisterConfig(probes=40, min_users=least)
        register.assemble(release, parts_of, cfg)
        pairs = pq.read_table(release / "training_pairs.parquet")["query"].to_pylist()
        probes = artifacts.read_json(release / "fingerprint.json")["queries"]
        users = {r["query"]: r["users"] for r in toy.queries() if r["split"] == "train"}
        assert len(pairs) == kept
        assert all(users[q] >= least for q in pairs)
        assert all(users.get(q, least) >= least for q in probes)
        assert len(probes) == 40, "captions of the catalogue take the place of rare queries"
        assert not {q for q in names - users.keys() if q.startswith("keyword")} & {*pairs, *probes}


@pytest.mark.parametrize("other", ["encoder", "text", "cut", "gone"])
def test_an_index_of_something_else_or_of_half_a_file_makes_no_release(made, tmp_path, other):
    """Encoders and documents are as many and as wide, so that only what they hold tells them apart."""
    onnx, built, documents, samples = parts(made[0], "crops")
    if other == "encoder":
        onnx = parts(made[0], "clicks")[0]
    elif other == "text":
        texts = [{**row, "text": f"{row['text']} again"} for row in toy.DOCUMENTS]
        documents = toy.write(tmp_path / "mined", DOCUMENTS=texts, QUERIES=toy.queries(), CANDIDATES=[])
    else:
        built = shutil.copytree(built, tmp_path / "index")
        whole = (built / "index.faiss").read_bytes()
        (built / "index.faiss").unlink()
        if other == "cut":
            (built / "index.faiss").write_bytes(whole[:999])
    fault = "another encoder or of other documents" if other in ("encoder", "text") else "index.faiss"
    (release := tmp_path / "release").mkdir()
    with pytest.raises(InputError, match=fault):
        register.assemble(release, (onnx, built, documents, samples), CFG)
