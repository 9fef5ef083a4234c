"""Hierarchical labels by hand, Wilson's interval against SciPy, and a choice that moves one way only."""

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from crops import labels, perspectives
from crops.config.label import LabelConfig
from crops.errors import ConfigError
from crops.retriever import batch, systems
from crops.retriever.loss import h_infonce
from crops.stages.learn import train
from crops.tables import artifacts, records

PAPER_LABELS = perspectives.labels()


def scored(*rows):
    return pd.DataFrame(rows, columns=["query", "doc_id", "perspective", "theta", "kept"])


def ran(expression):
    """Its rows in their order of pairs, by an engine."""
    frame = ibis.duckdb.connect().to_pandas(expression)
    return frame.sort_values(["query", "doc_id", "perspective"], ignore_index=True)


def assigned(rows, graded):
    return ran(labels.assign(ibis.memtable(rows), graded))


def test_a_pair_of_several_origins_keeps_its_highest_label():
    """a: clicked, skipped and reformulated -> 5, θ the highest asked; b: its reformulation was dropped, the
    click stays: 4; c: feed and click share 4: the first name, click; d: kept nowhere; e: skipped only: 3, θ
    never asked.
    """
    rows = scored(
        ("q", "a", "click", 0.2, True),
        ("q", "a", "exposed", np.nan, True),
        ("q", "a", "reformulation", 0.9, True),
        ("q", "b", "reformulation", 0.5, False),
        ("q", "b", "click", np.nan, True),
        ("q", "c", "feed", 0.7, True),
        ("q", "c", "click", np.nan, True),
        ("q", "d", "feed", 0.1, False),
        ("q", "e", "exposed", np.nan, True),
    )
    found = assigned(rows, PAPER_LABELS)
    assert found[["doc_id", "perspective", "label"]].values.tolist() == [
        ["a", "reformulation", 5],
        ["b", "click", 4],
        ["c", "click", 4],
        ["e", "exposed", 3],
    ]
    np.testing.assert_array_equal(found["theta"], [0.9, np.nan, 0.7, np.nan])
    assert found["label"].dtype == np.int8


def test_origins_keep_all_of_them():
    rows = scored(
        ("q", "a", "feed", 0.9, True),
        ("q", "a", "click", 0.1, True),
        ("q", "a", "feed", 0.9, True),
        ("q", "b", "feed", 0.2, False),
        ("q", "b", "feed", 0.2, False),
    )
    table = ibis.memtable(rows)
    assert ran(labels.origins(table)).values.tolist() == [["q", "a", "click"], ["q", "a", "feed"]]
    assert ran(labels.origins(table, kept=False)).values.tolist() == [["q", "b", "feed"]]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_assign_is_the_maximum_whatever_the_order_of_rows(data):
    names = sorted(PAPER_LABELS)
    row = st.tuples(
        st.sampled_from("pq"), st.sampled_from("ab"), st.sampled_from(names), st.just(np.nan), st.booleans()
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=12))
    expected = {}
    for query, doc, perspective, _theta, kept in rows:
        if kept:
            expected[query, doc] = max(PAPER_LABELS[perspective], expected.get((query, doc), 0))
    found = assigned(scored(*data.draw(st.permutations(rows))), PAPER_LABELS)
    assert {(r.query, r.doc_id): r.label for r in found.itertuples()} == expected
    assert found.equals(assigned(scored(*rows), PAPER_LABELS))


@given(st.integers(0, 60), st.integers(0, 60))
def test_wilson_interval_agrees_with_scipy(right, wrong):
    values = np.array([1.0] * right + [0.0] * wrong)
    found = labels.rung(values)
    if not len(values):
        assert found is None
        return
    expected = binomtest(right, len(values)).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=6e-5)
    assert (found.share, found.pairs) == (pytest.approx(right / len(values), abs=6e-5), len(values))


def test_pairs_that_were_not_asked_are_not_counted():
    """Label 4: 1, 0 and an unknown -> 1/2 of 2; label 3: only unknown -> left out."""
    found = labels.ladder(np.array([1.0, 0.0, np.nan, np.nan]), np.array([4, 4, 4, 3]))
    assert list(found) == ["4"]
    assert (found["4"].share, found["4"].pairs) == (0.5, 2)


def rungs(**shares):
    return {
        name[1:]: labels.rung(np.array([1.0] * round(1000 * x) + [0.0] * round(1000 * (1 - x))))
        for name, x in shares.items()
    }


@pytest.mark.parametrize(
    ("shares", "anchors"),
    [
        ({"l4": 0.8, "l3": 0.1}, (4,)),  # 0.1 < (0.5 - 0.2) x 0.8 = 0.24
        ({"l4": 0.8, "l3": 0.3}, (4, 3)),  # between 0.24 and 0.4: both go to validation
        ({"l4": 0.8, "l3": 0.5, "l2": 0.1}, (3,)),
        ({"l4": 0.9, "l3": 0.7, "l2": 0.65, "l1": 0.2}, (2,)),
        ({"l4": 0.9, "l3": 0.7, "l2": 0.65, "l1": 0.6}, (1,)),
        ({"l4": 0.8, "l3": 0.3, "l2": 0.7}, (4, 3)),  # a doubtful label ends it, whatever stands below
        ({"l4": 0.8, "l2": 0.7}, (4,)),  # a label that nobody measured ends it too
        ({"l5": 0.8, "l3": 0.7}, (3,)),
        ({"l3": 0.7}, (4,)),
        ({}, (4,)),
    ],
)
def test_choice_by_hand(shares, anchors):
    found = labels.choose(rungs(**shares), min_share=0.5, uncertain=0.2)
    assert found.anchor_min_candidates == anchors
    assert found.reason


grid = st.integers(0, 20).map(lambda n: n / 20)


@settings(deadline=None)
@given(
    st.lists(grid, min_size=4, max_size=4),
    st.floats(0.1, 0.9),
    st.floats(0.1, 0.9),
    st.floats(0, 0.4),
    st.integers(0, 2),
)
def test_choice_moves_one_way(shares, one, other, uncertain, raised):
    """A lower bar never takes anchors away, nor does more relevance of a lower label."""
    four, *lower = shares
    strict, lax = max(one, other), min(one, other)

    def lowest(values, bar):
        steps = rungs(l4=four, l3=values[0], l2=values[1], l1=values[2])
        candidates = labels.choose(steps, min_share=bar, uncertain=uncertain).anchor_min_candidates
        assert candidates in {(4,), (3,), (2,), (1,), (4, 3), (3, 2), (2, 1)}
        return candidates[-1]

    assert lowest(lower, lax) <= lowest(lower, strict)
    more = list(lower)
    more[raised] = 1.0
    assert lowest(more, strict) <= lowest(lower, strict)


def test_labels_that_the_log_cannot_tell_apart_are_named():
    """1,000 pairs each: 0.80 and 0.79 overlap (±0.025), 0.79 and 0.30 do not, 0.30 and 0.31 do."""
    found = labels.choose(rungs(l5=0.8, l4=0.79, l3=0.3, l2=0.31), min_share=0.5, uncertain=0.1)
    assert found.merged == ((5, 4), (3, 2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"click": 128}, "1..127"),
        ({"click": 0}, "1..127"),
        ({"click": 9}, "at most 5 different labels"),
        ({"click": 3}, "exposed below the labels of all positives"),
        ({"wish": 4}, "a label for each of"),
    ],
)
def test_labels_are_checked_where_they_are_set(change, says):
    with pytest.raises(ConfigError, match=says):
        LabelConfig.parse({"labels": PAPER_LABELS | change})
    assert LabelConfig.parse({"labels": PAPER_LABELS | {"reformulation": 4}}).labels["reformulation"] == 4


def test_below_the_lowest_anchor_only_people_are_believed():
    """All labels look as relevant as label 4: θ may take label 3, people what they judged, in a row from
    above.
    """
    steps = {str(n): labels.Rung(0.8, 0.7, 0.9, 100) for n in (5, 4, 3, 2, 1)}

    def chosen(judged=()):
        return labels.choose(
            steps, min_share=0.5, uncertain=0.2, anchor_min=3, judged=judged
        ).anchor_min_candidates

    assert chosen() == (3,)
    assert chosen({"2"}) == (2,)
    assert chosen({"2", "1"}) == (1,)
    assert chosen({"1"}) == (3,), "label 2 stands between"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Samples of every perspective: documents, and per query three pairs of each, of which half are clicked
    as well; label.json is written by the test.
    """
    folder = tmp_path_factory.mktemp("toy")
    names = perspectives.names()
    rows = [
        (f"topic{t}", f"v{t}-{n}-{k}", name)
        for t in range(4)
        for n, name in enumerate(names)
        for k in range(3)
    ]
    rows += [(query, doc, "click") for query, doc, _name in rows[::2]]
    content = {
        records.DOCUMENTS: [{"doc_id": d, "text": f"text of {d}"} for d in sorted({d for _, d, _ in rows})],
        records.ORIGINS: [dict(zip(("query", "doc_id", "perspective"), row, strict=True)) for row in rows],
        records.VALID_QR: [{"query": "topic0", "video_id": "v0-0-0", "later_query": "x"}],
        records.QUERIES: [{"query": "topic0", "split": "train", "searches": 1, "clicks": 1, "users": 5}],
    }
    for table, listed in content.items():
        artifacts.write(folder, table, pa.Table.from_pylist(listed, schema=table.schema))
    return folder, scored(*((*row, np.nan, True) for row in rows))


order_keeping = st.sets(st.integers(1, 127), min_size=5, max_size=5).map(
    lambda values: dict(zip(range(1, 6), sorted(values), strict=True))
)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moved=order_keeping)
def test_only_the_order_of_the_labels_matters(toy, moved):
    """Whatever map keeps the order: the same samples up to the map, the same inputs of every system, hence
    the same plans, batches and loss.
    """
    folder, rows = toy
    mapped = {name: moved[label] for name, label in PAPER_LABELS.items()}
    assert LabelConfig(labels=mapped).anchor_min == moved[3]
    one, other = assigned(rows, PAPER_LABELS), assigned(rows, mapped)
    assert one.assign(label=one["label"].map(moved)).astype(other.dtypes).equals(other)

    def inputs(samples, graded, system):
        table = pa.Table.from_pandas(samples, preserve_index=False)
        artifacts.write(folder, records.SAMPLES, table)
        return train.inputs_of(folder, folder, systems.SYSTEMS[system], graded)

    for system in systems.SYSTEMS:
        plain, same = inputs(one, PAPER_LABELS, system), inputs(other, mapped, system)
        assert plain.digest == same.digest, system
        assert plain.samples.positive_min == same.samples.positive_min == 4
        sizes = {"size": 3, "positives": 2, "lower": 1, "seed": 0}
        for label in (1, 3, 4):
            first, second = (labels.rank(n, g) for n, g in ((label, PAPER_LABELS), (moved[label], mapped)))
            drawn = batch.Batches(plain.samples, anchor_min=first, **sizes).at(0)
            again = batch.Batches(same.samples, anchor_min=second, **sizes).at(0)
            np.testing.assert_array_equal(drawn.labels, again.labels)
            np.testing.assert_array_equal(drawn.texts, again.texts)
            scores = torch.randn(drawn.labels.shape, generator=torch.Generator().manual_seed(0))
            losses = [
                h_infonce(scores, torch.tensor(b.labels), anchor_min=n)
                for b, n in ((drawn, first), (again, second))
            ]
            assert losses[0] == losses[1]
    # Batches of the labels themselves, without their ranks, draw the same as well.
    pairs = [
        batch.pairs(zip(s["query"], s["doc_id"], s["label"], strict=True), positive_min=border)
        for s, border in ((one, 4), (other, moved[4]))
    ]
    raw = [batch.Batches(p, anchor_min=a, **sizes).at(0) for p, a in zip(pairs, (3, moved[3]), strict=True)]
    step = {**moved, 0: 0, -1: -1}
    np.testing.assert_array_equal(np.vectorize(step.get)(raw[0].labels), raw[1].labels)
    np.testing.assert_array_equal(raw[0].texts, raw[1].texts)


@settings(max_examples=50, deadline=None)
@given(st.lists(grid, min_size=5, max_size=5), order_keeping, st.integers(1, 4), st.sets(st.integers(1, 5)))
def test_the_hierarchy_is_chosen_by_the_order_of_the_labels(shares, moved, anchor_min, judged):
    steps = rungs(**{f"l{n}": share for n, share in zip(range(1, 6), shares, strict=True)})
    mapped = {name: moved[label] for name, label in PAPER_LABELS.items()}
    bars = {"min_share": 0.5, "uncertain": 0.2}
    one = labels.choose(steps, **bars, anchor_min=anchor_min, judged={str(n) for n in judged})
    other = labels.choose(
        {str(moved[int(n)]): step for n, step in steps.items()},
        **bars,
        anchor_min=moved[anchor_min],
        judged={str(moved[n]) for n in judged},
        labels=mapped,
    )
    assert other.anchor_min_candidates == tuple(moved[n] for n in one.anchor_min_candidates)
    assert other.merged == tuple((moved[a], moved[b]) for a, b in one.merged)


def test_a_config_that_names_some_labels_has_the_others_by_default():
    assert LabelConfig.parse({"labels": {"reformulation": 4}}).labels == PAPER_LABELS | {"reformulation": 4}
