"""Vectors out: those of the release's index, whoever was killed on the way and however many machines shared
the work.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops.cli import serve
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.errors import InputError
from crops.release import index, layout
from crops.stages.base import Shard
from crops.stages.release import champion, embed
from tests.crops.stages import toy_release as toy

CFG = IndexConfig(batch=4)  # blocks of 64 of the 180 documents: three
ROOT = Path(__file__).resolve().parents[4]
KILLED = """
import os, signal, sys
from pathlib import Path
from crops.config.index import IndexConfig
from crops.stages.release import embed
encode, calls = embed.OnnxEncoder.encode, []

def until(self, texts, **more):
    calls.append(0)
    if len(calls) > 20:  # 16 calls make the first block
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(self, texts, **more)

embed.OnnxEncoder.encode = until
embed.run(*map(Path, sys.argv[1:]), IndexConfig(batch=4))
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A registered release of the toy catalogue as the registry gives it back, and the registry."""
    root = tmp_path_factory.mktemp("embed")
    uri = toy.champion(root, {row["doc_id"]: row["text"] for row in toy.DOCUMENTS}, cfg=CFG)
    champion.run(root / "champion", RegisterConfig(probes=8), registry=uri)
    return root / "champion", uri


def _vectors(path):
    table = pq.read_table(path)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), len(table["vector"][0]))
    found = np.stack(table["vector"].to_numpy())
    assert found.dtype == np.float32
    return dict(zip(table["doc_id"].to_pylist(), found, strict=True))


def _same(path, release):
    """Element by element what the index holds, document by document."""
    held = index.of_release(release)
    kept = dict(zip(held.ids, held.inner.reconstruct_n(0, len(held.ids)), strict=True))
    found = _vectors(path)
    assert list(found) == list(kept)
    for doc_id, vector in found.items():
        np.testing.assert_allclose(vector, kept[doc_id], atol=1e-6)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_vectors_are_those_of_the_index(release, tmp_path):
    folder, _ = release
    out = tmp_path / "vectors.parquet"
    report = embed.run(folder, folder, out, CFG)
    assert (report.numbers["documents"], report.numbers["of_an_earlier_start"]) == (180, 0)
    _same(out, folder)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == ["vectors.parquet"]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(release, tmp_path):
    folder, _ = release
    embed.run(folder, folder, tmp_path / "whole.parquet", CFG)
    out = tmp_path / "vectors.parquet"
    words = [sys.executable, "-c", KILLED, str(folder), str(folder), str(out)]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert not out.exists()
    assert len(list(embed.parts_of(out).glob("part-*.parquet"))) == 1
    report = embed.run(folder, folder, out, CFG)
    assert report.numbers["of_an_earlier_start"] == 64
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not embed.parts_of(out).exists()


def test_blocks_of_other_texts_are_not_taken(release, tmp_path):
    folder, _ = release
    out = tmp_path / "vectors.parquet"
    changed = [{**row, "text": row["text"] + " more"} for row in toy.DOCUMENTS]
    mined = toy.write(tmp_path / "mined", DOCUMENTS=changed)
    words = [sys.executable, "-c", KILLED, str(folder), str(mined), str(out)]
    subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert list(embed.parts_of(out).glob("part-*.parquet"))
    report = embed.run(folder, folder, out, CFG)
    assert report.numbers["of_an_earlier_start"] == 0
    _same(out, folder)


def test_shards_are_together_the_whole(release, tmp_path):
    folder, _ = release
    found = {}
    for n in range(3):
        embed.run(folder, folder, tmp_path / f"{n}.parquet", CFG, shard=Shard(n, 3))
        part = _vectors(tmp_path / f"{n}.parquet")
        assert part
        assert not found.keys() & part.keys()
        found |= part
    embed.run(folder, folder, tmp_path / "whole.parquet", CFG)
    whole = _vectors(tmp_path / "whole.parquet")
    assert found.keys() == whole.keys()
    for doc_id, vector in found.items():
        np.testing.assert_allclose(vector, whole[doc_id], atol=1e-6)


def test_a_file_of_somebody_else_stays_and_a_changed_encoder_is_refused(release, tmp_path):
    folder, _ = release
    theirs = tmp_path / "theirs.parquet"
    pq.write_table(pa.table({"doc_id": ["a"]}), theirs)
    before = theirs.read_bytes()
    with pytest.raises(InputError, match="crops embed` has not written it"):
        embed.run(folder, folder, theirs, CFG)
    assert theirs.read_bytes() == before
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    with (bad / layout.QUERY_ENCODER).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="is not what was registered"):
        embed.run(bad, folder, tmp_path / "out.parquet", CFG)


def test_the_verb_takes_a_release_of_the_registry(release, tmp_path):
    folder, uri = release
    out = tmp_path / "vectors.parquet"
    words = ["--release", "models:/crops/1", "--documents", folder, "--out", out, "--registry", uri]
    serve.embed.main(list(map(str, words)), standalone_mode=False)
    _same(out, folder)
    assert not embed.parts_of(out).exists()
