"""Judged pairs from a log small enough to read, and a sample without leakage."""

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.discriminator import pairs

SEARCHES = [("s1", "a"), ("s2", "a"), ("s3", "b")]
# search, video, stage, position, clicked, liked, play_s
RESULTS = [
    ("s1", "skipped", "exposed", 0, False, False, None),  # above the click at 1, never clicked: not relevant
    ("s1", "long", "exposed", 1, True, False, 18.0),  # exactly 18 s: relevant
    ("s1", "below", "exposed", 2, False, False, None),  # below the last click: nobody knows
    ("s1", "hidden", "ranked", None, False, False, None),  # never shown: nobody knows
    ("s2", "brief", "exposed", 0, True, False, 17.9),  # clicked, but not for long: nobody knows
    ("s2", "short", "exposed", 1, True, False, 7.0),  # 7 s of 7 s, watched whole: relevant
    (
        "s2",
        "skipped",
        "exposed",
        2,
        True,
        False,
        1.0,
    ),  # clicked here: no longer "never clicked": nobody knows
    (
        "s2",
        "liked",
        "exposed",
        3,
        False,
        True,
        None,
    ),  # liked without a play: counts as looked at, not as long
    ("s2", "above_like", "exposed", 2, False, False, None),  # skipped above the like: not relevant
    ("s2", "played", "exposed", 4, False, False, 30.0),  # played by itself for 30 s: relevant without a click
    ("s3", "skipped", "exposed", 0, False, False, None),  # another query without any click: nobody knows
    (
        "s9",
        "long",
        "exposed",
        0,
        True,
        False,
        60.0,
    ),  # a search that was not handed in (a held-out day): nothing
]
VIDEOS = [("short", 7.0), ("long", 40.0), ("brief", None), ("played", 300.0)]


def found(results=RESULTS, searches=SEARCHES, plays=True):
    base = ibis.duckdb.connect()

    def table(columns, rows):
        rows = pa.table({c: pa.array([r[n] for r in rows], t) for n, (c, t) in enumerate(columns)})
        return ibis.memtable(rows)

    text, flag = pa.string(), pa.bool_()
    expression = pairs.judged(
        table([("search_id", text), ("query", text)], searches),
        table(
            [
                ("search_id", text),
                ("video_id", text),
                ("stage", text),
                ("position", pa.int32()),
                ("clicked", flag),
                ("liked", flag),
                ("play_s", pa.float32()),
            ],
            results,
        ),
        table([("video_id", text), ("duration_s", pa.float32())], VIDEOS),
        long_play_s=18.0,
        plays=plays,
    )
    return [tuple(r.values()) for r in base.to_pyarrow(expression).to_pylist()]


def test_judged_pairs_by_hand():
    assert found() == [
        ("a", "above_like", False),
        ("a", "long", True),
        ("a", "played", True),
        ("a", "short", True),
    ]
    assert found([r for r in RESULTS if r[:2] != ("s2", "skipped")])[-2:] == [
        ("a", "short", True),
        ("a", "skipped", False),
    ]


def test_without_plays_a_click_or_like_is_relevant_and_a_skip_above_it_is_not():
    """As in a shop: `brief` and `liked` count, `played` was never chosen, `skipped` was clicked once."""
    assert found([(*row[:6], None) for row in RESULTS], plays=False) == [
        ("a", "above_like", False),
        ("a", "brief", True),
        ("a", "liked", True),
        ("a", "long", True),
        ("a", "short", True),
        ("a", "skipped", True),
    ]


def test_nothing_of_a_search_that_was_not_handed_in():
    assert found(searches=[("s3", "b")]) == []


def make(queries, docs, relevant, **change):
    texts = {f"v{n}": f"text {n}" for n in range(50)}
    given_ = {"max_pairs": 1_000, "random_per_positive": 1.5, "held_out_share": 0.25, "seed": 3} | change
    return pairs.sample(queries, docs, np.array(relevant, dtype=bool), texts, **given_)


log = st.dictionaries(
    st.tuples(st.integers(0, 9), st.integers(0, 55)), st.booleans(), min_size=4, max_size=120
)


@settings(deadline=None, max_examples=80)
@given(log, st.integers(10, 200), st.floats(0, 3))
def test_sample_is_balanced_and_leaks_nothing(judged, max_pairs, random_per_positive):
    """Never more skipped than positives, random ones up to their share, no random document that is known to
    be relevant, no pair twice, unknown documents (v50..) left out, and no query on both sides.
    """
    rows = [(f"q{q}", f"v{d}", r) for (q, d), r in judged.items()]
    out = make(
        [r[0] for r in rows],
        [r[1] for r in rows],
        [r[2] for r in rows],
        max_pairs=max_pairs,
        random_per_positive=random_per_positive,
    )
    relevant = {(q, f"text {d[1:]}") for q, d, r in rows if r}
    triples = list(zip(out.queries, out.texts, out.relevant.tolist(), strict=True))
    pairs_of = [t[:2] for t in triples]
    assert len(set(pairs_of)) == len(pairs_of)
    assert all((pair in relevant) == (r == 1.0) for *pair_, r in triples for pair in [tuple(pair_)])
    positives = int(out.relevant.sum())
    assert len(triples) <= max_pairs + 1
    skipped = {(q, f"text {d[1:]}") for q, d, r in rows if not r}
    drawn = [t for t in triples if t[2] == 0.0 and t[:2] not in skipped]
    assert len(drawn) <= positives * random_per_positive
    assert len(triples) - positives - len(drawn) <= positives * (1 + random_per_positive)
    held = {q for q, h in zip(out.queries, out.held_out, strict=True) if h}
    trained = {q for q, h in zip(out.queries, out.held_out, strict=True) if not h}
    assert not held & trained
    if len(held | trained) >= 3:
        assert held
        assert trained


def test_a_relevant_document_that_was_not_drawn_is_no_random_negative():
    """One query with 40 relevant of 50 documents, 10 of them drawn: the other 30 must not come back as random
    negatives.
    """
    out = make(["q"] * 40, [f"v{n}" for n in range(40)], [True] * 40, max_pairs=40, random_per_positive=2.0)
    wrong = [t for t, r in zip(out.texts, out.relevant, strict=True) if r == 0.0 and int(t.split()[1]) < 40]
    assert int(out.relevant.sum()) == 10
    assert wrong == []


def test_the_same_seed_draws_the_same():
    rows = [(f"q{n % 7}", f"v{n}", n % 3 == 0) for n in range(50)]
    one, two = (make(*map(list, zip(*rows, strict=True))) for _ in range(2))
    assert (one.queries, one.texts) == (two.queries, two.texts)
    np.testing.assert_array_equal(one.held_out, two.held_out)
    other = make(*map(list, zip(*rows, strict=True)), seed=4)
    assert (one.queries, one.texts) != (other.queries, other.texts)


def test_no_positive_no_sample():
    assert len(make(["q"], ["v1"], [False]).queries) == 0


@pytest.mark.parametrize("seed", range(3))
def test_held_out_share_is_of_queries(seed):
    rows = [(f"q{n % 40}", f"v{n % 50}", n % 2 == 0) for n in range(400)]
    out = make(*map(list, zip(*rows, strict=True)), seed=seed)
    distinct = set(out.queries)
    assert len({q for q, h in zip(out.queries, out.held_out, strict=True) if h}) == len(distinct) // 4


def put(house, name, columns, *rows):
    """A table of texts, but for what is called a number."""
    kinds = {"support": pa.int64(), "theta": pa.float64(), "nearest": pa.float64()}
    schema = pa.schema([(c, kinds.get(c, pa.string())) for c in columns.split()])
    return house.put(
        pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in rows], schema), name
    )


def told(house, expr, *columns):
    rows = [tuple(row[c] for c in columns) for row in house.fetch(expr.select(*columns))]
    return sorted(rows, key=repr)


def test_neither_a_validation_pair_nor_its_twin_by_text_is_learnt_from(house):
    """v9 has no text; (a, v1) is held out, and v2 has its text: of the other query both stay."""
    rows = put(
        house, "rows", "query video_id", ("a", "v1"), ("a", "v2"), ("a", "v3"), ("b", "v1"), ("b", "v9")
    )
    texts = put(house, "texts", "doc_id text", ("v1", "same"), ("v2", "same"), ("v3", "other"))
    valid = put(house, "valid", "query video_id", ("a", "v1"))
    free = pairs.learnable(rows, texts, valid)
    assert told(house, free, "query", "doc_id") == [("a", "v3"), ("b", "v1")]


def test_a_pair_is_asked_once_and_says_whether_it_was_clicked(house):
    mined = put(
        house,
        "mined",
        "query doc_id perspective",
        ("a", "v1", "feed"),
        ("a", "v1", "click"),
        ("a", "v2", "click"),
        ("a", "v3", "exposed"),
        ("b", "v1", "reformulation"),
        ("b", "v1", "feed"),
    )
    asked = pairs.asked(mined, ["feed"])
    assert told(house, asked, "query", "doc_id", "asked", "clicked") == [
        ("a", "v1", True, True),
        ("a", "v2", False, True),
        ("b", "v1", True, False),
    ]


def test_rows_get_their_scores_once_and_what_is_mined_of_their_document(house):
    """The score of (a, v1) came from two shards; a test row counts the events of the other perspective."""
    rows = put(
        house,
        "rows",
        "query doc_id perspective support",
        ("a", "v1", "feed", 2),
        ("b", "v1", "feed", 3),
        ("b", "v2", "click", 1),
        ("c", "v1", "(test)", 1),
    )
    scores = put(
        house,
        "scores",
        "query doc_id theta nearest",
        ("a", "v1", 0.5, None),
        ("a", "v1", 0.5, None),
        ("x", "v1", 0.1, 0.2),
    )
    out = pairs.weighed(rows, scores, {"feed": "feed", "(test)": "feed"})
    assert told(house, out, "query", "doc_id", "theta", "nearest", "of_video") == [
        ("a", "v1", 0.5, None, 5),
        ("b", "v1", None, None, 5),
        ("b", "v2", None, None, None),
        ("c", "v1", None, None, 5),
    ]
