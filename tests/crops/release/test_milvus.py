"""Milvus (milvus-lite, in this process) against exact search; a build that was killed is made anew; the alias
is swapped last.
"""

import numpy as np
import pytest

from crops.errors import InputError
from crops.release import index, milvus

RNG = np.random.default_rng(0)


def unit(count, width=24):
    vectors = RNG.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "milvus.db")


def test_it_finds_what_exact_search_finds(uri):
    """HNSW with a wide search: nearly all of the exact top ten, with the same scores and row numbers."""
    vectors, queries = unit(1500), unit(40)
    ids = tuple(f"v{n}" for n in range(1500))
    assert milvus.build(uri, "crops_a", (vectors[:700], vectors[700:]), width=24) == 1500
    scores, rows = milvus.load(uri, "crops_a", ids, width=24).search(queries, 10)
    exact_scores, exact_rows = index.exact(vectors, queries, 10)
    assert rows.dtype == np.int64
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact_rows, strict=True)]) > 0.97
    np.testing.assert_allclose(scores[:, 0], exact_scores[:, 0], atol=1e-4)
    with pytest.raises(ValueError, match="expected"):
        milvus.load(uri, "crops_a", ids, width=24).search(unit(1, 8), 3)


def test_a_killed_build_is_no_index_and_is_made_anew(uri):
    vectors = unit(60)

    def dies():
        yield vectors[:30]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        milvus.build(uri, "crops_b", dies(), width=24)
    ids = tuple(map(str, range(60)))
    with pytest.raises(InputError, match="no whole collection"):
        milvus.load(uri, "crops_b", ids, width=24)
    assert milvus.build(uri, "crops_b", [vectors], width=24) == 60
    assert milvus.build(uri, "crops_b", [], width=24) == 60, "what is whole is left alone"
    with pytest.raises(InputError, match="expected 61 of width 24"):
        milvus.load(uri, "crops_b", (*ids, "more"), width=24)
    assert (
        milvus.load(uri, "crops_b", ids, width=24).search(vectors[:5], 100)[1][:, 0] == np.arange(5)
    ).all()


def test_the_alias_moves_in_one_step(uri):
    first, second = unit(20), unit(20)
    for name, vectors in (("crops_one", first), ("crops_two", second)):
        milvus.build(uri, name, [vectors], width=24)
    milvus.swap(uri, "crops_control", "crops_one")
    found = milvus.MilvusIndex(milvus._client(uri), "crops_control", tuple(map(str, range(20))), 24)
    assert found.search(first[3:4], 1)[1][0, 0] == 3
    milvus.swap(uri, "crops_control", "crops_two")
    assert found.search(second[7:8], 1)[0][0, 0] == pytest.approx(1.0, abs=1e-4)
