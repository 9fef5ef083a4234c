"""Exact search against a full sort, FAISS against exact search, and an index file that is not the registered
one.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crops.errors import ConfigError, InputError
from crops.release import index, layout

HALF = "Refine(SQfp16)"


def unit(rng, rows, width):
    vectors = rng.standard_normal((rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# Small whole numbers: many ties, and products without rounding, so that both ways must agree to the bit.
whole = hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-2, 2))


@settings(deadline=None, max_examples=200)
@given(whole, whole, st.integers(1, 40), st.integers(1, 100))
def test_exact_agrees_with_a_stable_sort_of_all_scores(documents, queries, k, at_once):
    scores = queries @ documents.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found, places = index.exact(documents, queries, k, scores_at_once=at_once)
    np.testing.assert_array_equal(places, rows)
    np.testing.assert_array_equal(found, np.take_along_axis(scores, rows, axis=1))


def test_exact_by_hand():
    """Documents at 0, 1, 1, 2 on one axis: best is row 3, then rows 1 and 2 in this order; row 2 falls out at
    k = 2.
    """
    scores, rows = index.exact(np.array([[0.0], [1.0], [1.0], [2.0]]), np.array([[1.0]]), 2)
    assert (scores.tolist(), rows.tolist()) == ([[2.0, 1.0]], [[3, 1]])


def test_exact_of_no_query_and_of_no_k():
    assert index.exact(np.eye(3), np.empty((0, 3)), 2)[1].shape == (0, 2)
    with pytest.raises(ValueError, match="expected >= 1"):
        index.exact(np.eye(3), np.eye(3), 0)


def test_exact_holds_a_bounded_number_of_scores():
    """2,000 queries x 4,000 documents would be 32 MB of scores; allowed are 40,000 of them (160 kB) at a
    time.
    """
    import tracemalloc

    rng = np.random.default_rng(0)
    documents, queries = unit(rng, 4_000, 8), unit(rng, 2_000, 8)
    tracemalloc.start()
    index.exact(documents, queries, 10, scores_at_once=40_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_flat_agrees_with_exact():
    rng = np.random.default_rng(1)
    documents, queries = unit(rng, 500, 16), unit(rng, 40, 16)
    made = index.build(documents, tuple(map(str, range(500))), factory="Flat", nprobe=1, ef_search=1)
    scores, rows = made.search(queries, 20)
    expected, places = index.exact(documents, queries, 20)
    np.testing.assert_array_equal(rows, places)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("factory", "least"),
    [
        ("IVF16,Flat", 1.0),
        ("HNSW16", 0.95),
        ("IVF16,PQ16x4fs,RFlat", 0.95),
        ("IVF16,PQ16x4fs,Refine(SQfp16)", 0.95),
    ],
)
def test_approximate_indexes_find_what_exact_search_finds(factory, least):
    """With all 16 lists probed IVF is exact; the others lose a little. The share of the true top 10 is
    counted by hand.
    """
    rng = np.random.default_rng(2)
    documents = unit(rng, 3_000, 32)
    queries = documents[:100] + 0.1 * unit(rng, 100, 32)
    made = index.build(
        documents, tuple(map(str, range(3_000))), factory=factory, nprobe=16, ef_search=200, refine_factor=32
    )
    expected, found = index.exact(documents, queries, 10)[1], made.search(queries, 10)[1]
    share = np.mean(
        [len(set(a) & set(b)) / 10 for a, b in zip(expected.tolist(), found.tolist(), strict=True)]
    )
    assert share >= least


def test_fewer_lists_probed_or_fewer_refined_find_less():
    """The planted fault: the settings must reach the index, else the recall above proves nothing about
    them.
    """
    rng = np.random.default_rng(3)
    documents, queries = unit(rng, 3_000, 32), unit(rng, 50, 32)
    expected = index.exact(documents, queries, 10)[1]

    def share(factory, nprobe, refine_factor):
        made = index.build(
            documents,
            tuple(map(str, range(3_000))),
            factory=factory,
            nprobe=nprobe,
            ef_search=1,
            refine_factor=refine_factor,
        )
        return np.mean(made.search(queries, 10)[1] == expected)

    assert share("IVF32,Flat", 1, 1) < 0.5 < share("IVF32,Flat", 32, 1) == 1.0
    assert share("IVF32,PQ16x4fs,RFlat", 32, 1) < 0.5 < share("IVF32,PQ16x4fs,RFlat", 32, 64)


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", f"IVF16,PQ16x4fs,{HALF}"])
def test_added_in_parts_and_from_a_file_it_is_the_same_index(tmp_path, monkeypatch, factory):
    """As long as all of them teach it; a tenth of them teaches it nearly as well."""
    vectors = unit(np.random.default_rng(3), 3_000, 32)
    ids = tuple(map(str, range(3_000)))
    on_disk = np.lib.format.open_memmap(tmp_path / "v.npy", mode="w+", dtype="f4", shape=vectors.shape)
    on_disk[:] = vectors

    def made(of):
        built = index.build(of, ids, factory=factory, nprobe=8, ef_search=200, refine_factor=32)
        index.save(built, tmp_path / "index.faiss")
        return (tmp_path / "index.faiss").read_bytes(), built

    whole, built = made(vectors)
    monkeypatch.setattr(index, "ADDED_AT_ONCE", 7)
    assert made(on_disk)[0] == whole
    monkeypatch.setattr(index, "TRAINED_ON", 300)
    few = made(on_disk)[1]
    exact = index.exact(vectors, vectors[:50], 10)[1]
    overlap = [
        np.mean([len({*a} & {*b}) / 10 for a, b in zip(one.search(vectors[:50], 10)[1], exact, strict=True)])
        for one in (built, few)
    ]
    assert overlap[1] > overlap[0] - 0.1


def test_more_than_there_is(tmp_path):
    made = index.build(np.eye(3, dtype=np.float32), ("a", "b", "c"), factory="Flat", nprobe=1, ef_search=1)
    assert made.search(np.eye(3)[:1], 10)[1].shape == (1, 3)
    with pytest.raises(ValueError, match="expected \\[Q, 3\\]"):
        made.search(np.eye(4), 1)
    with pytest.raises(ValueError, match="3 vectors for 2 documents"):
        index.build(np.eye(3), ("a", "b"), factory="Flat", nprobe=1, ef_search=1)


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF4,Flat", "HNSW16", "IVF4,PQ8x4fs,RFlat", "IVF4,PQ8x4fs,Refine(SQfp16)"]
)
def test_loaded_index_answers_the_same_from_a_mapped_file(tmp_path, factory):
    rng = np.random.default_rng(4)
    documents, queries, ids = unit(rng, 400, 16), unit(rng, 10, 16), tuple(map(str, range(400)))
    made = index.build(documents, ids, factory=factory, nprobe=3, ef_search=50)
    path = tmp_path / "index.faiss"
    checksum = index.save(made, path)
    loaded = index.load(path, ids, checksum=checksum, width=16)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(path) in maps.read(), "the file is read into memory, not mapped"
    for ours, theirs in zip(made.search(queries, 5), loaded.search(queries, 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_file_width_or_number_of_documents_is_refused(tmp_path):
    ids = ("a", "b", "c")
    path = tmp_path / "index.faiss"
    checksum = index.save(index.build(np.eye(3), ids, factory="Flat", nprobe=1, ef_search=1), path)
    for change, says in (
        ({"checksum": "0" * 64}, "not the index that was registered"),
        ({"width": 4}, "holds 3 vectors of width 3, expected 3 vectors of width 4"),
        ({"ids": ("a", "b")}, "expected 2 vectors"),
        ({"path": tmp_path / "nowhere"}, "no such file"),
    ):
        given_ = {"path": path, "ids": ids, "checksum": checksum, "width": 3} | change
        with pytest.raises(InputError, match=says):
            index.load(given_["path"], given_["ids"], checksum=given_["checksum"], width=given_["width"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="not the index that was registered"):
        index.load(path, ids, checksum=checksum, width=3)
    with pytest.raises(InputError, match="not a readable FAISS index"):
        index.load(path, ids, checksum=layout.sha256(path), width=3)


def test_factory_by_size():
    sizes = {100: "Flat", 1_000: "IVF8,Flat"}
    assert [index.factory_for(n, sizes) for n in (1, 100, 101, 1_000, 5_000)] == [
        "Flat",
        "Flat",
        *["IVF8,Flat"] * 3,
    ]


@pytest.mark.parametrize("factory", ["IVF64,Flat", "PQ4", "PQ3", "Nonsense"])
def test_a_kind_that_does_not_fit_the_documents_is_a_setting_to_change(factory):
    """64 lists of 10 documents, 256 codes of 10, 3 parts of a width of 8, and no kind at all."""
    vectors = unit(np.random.default_rng(0), 10, 8)
    with pytest.raises(ConfigError, match=f"{factory}.*10 documents of width 8"):
        index.build(vectors, tuple("abcdefghij"), factory=factory, nprobe=4, ef_search=4)


@pytest.mark.parametrize(
    ("factory", "least"),
    [
        ("Flat", 4 * 32),
        ("HNSW16", 4 * 32),
        (f"IVF16,PQ16x4fs,{HALF}", 2 * 32),
        ("IVF16,PQ16", 16),  # codes alone: a limit of vectors would refuse what fits
        ("no such kind", 0),
    ],
)
def test_what_a_vector_takes_is_what_faiss_says(factory, least):
    """At most a few bytes more: codes beside what they are refined by, and the number of the list."""
    assert least <= index.bytes_each(factory, 32) <= least + 16


def test_an_index_never_takes_less_than_is_said(tmp_path):
    """The file that FAISS writes is the judge."""
    vectors = unit(np.random.default_rng(5), 2_000, 32)
    for factory in ("Flat", "HNSW16", "IVF16,PQ16", f"IVF16,PQ16x4fs,{HALF}"):
        made = index.build(vectors, tuple(map(str, range(2_000))), factory=factory, nprobe=4, ef_search=16)
        index.save(made, tmp_path / "index.faiss")
        assert (tmp_path / "index.faiss").stat().st_size >= 2_000 * index.bytes_each(factory, 32)
