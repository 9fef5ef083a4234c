"""Recall and nDCG against trec_eval, diversity by hand, and a bootstrap that covers as often as it says."""

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.evaluation import metrics as evaluation


def test_recall_by_hand():
    """Query 0: {1, 9}, of which 1 is at place 2 -> 1/2. Query 1: {5, 6, 7}, 5 and 7 found -> 2/3. Mean
    7/12.
    """
    ranked = np.array([[3, 1, 2], [7, 5, -1]])
    assert evaluation.recall_at_k(ranked, [{1, 9}, {5, 6, 7}], 2) == pytest.approx(7 / 12)


def test_recall_where_more_are_relevant_than_fit():
    """150 relevant, the first 100 places all relevant: 100/150, not 1."""
    assert evaluation.recall_at_k(np.arange(200)[None], [set(range(150))], 100) == pytest.approx(100 / 150)


def test_ndcg_by_hand():
    """Grades a=3, b=1; ranked b, x, a: (1/log2 2 + 3/log2 4) / (3/log2 2 + 1/log2 3) = 2.5 / 3.6309."""
    got = evaluation.ndcg_at_k(np.array([[1, 7, 0]]), [{0: 3, 1: 1}], 4)
    assert got == pytest.approx((1 + 3 / 2) / (3 + 1 / math.log2(3)))


@st.composite
def judged_rankings(draw):
    """Rankings [Q, D] without repetition, some padded with -1 at the end, and grades -1..3 with a positive
    one per query.
    """
    length, documents = draw(st.integers(1, 12)), draw(st.integers(12, 20))
    ranked, grades = [], []
    for _ in range(draw(st.integers(1, 5))):
        row = draw(st.permutations(range(documents)))[:length]
        found = draw(st.integers(0, length))
        ranked.append(row[:found] + [-1] * (length - found))
        known = draw(st.dictionaries(st.integers(0, documents - 1), st.integers(-1, 3), max_size=documents))
        grades.append(known | {draw(st.integers(0, documents - 1)): draw(st.integers(1, 3))})
    return np.array(ranked), grades


def trec(ranked, grades, measure):
    """trec_eval's mean; scores fall with the place, so that its own order (score, then id) is the ranking."""
    run = {
        str(q): {str(d): float(len(row) - place) for place, d in enumerate(row.tolist()) if d >= 0}
        for q, row in enumerate(ranked)
    }
    qrel = {str(q): {str(d): g for d, g in known.items()} for q, known in enumerate(grades)}
    found = pytrec_eval.RelevanceEvaluator(qrel, {measure}).evaluate(run)
    name = measure.replace(".", "_")
    return sum(found.get(str(q), {}).get(name, 0.0) for q in range(len(ranked))) / len(ranked)


@settings(deadline=None, max_examples=150)
@given(judged_rankings(), st.integers(1, 15))
def test_recall_and_ndcg_agree_with_trec_eval(case, k):
    ranked, grades = case
    relevant = [{d for d, g in known.items() if g > 0} for known in grades]
    assert evaluation.recall_at_k(ranked, relevant, k) == pytest.approx(
        trec(ranked, grades, f"recall.{k}"), abs=1e-9
    )
    assert evaluation.ndcg_at_k(ranked, grades, k) == pytest.approx(
        trec(ranked, grades, f"ndcg_cut.{k}"), abs=1e-9
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: evaluation.recall_at_k(np.empty((0, 3)), [], 5), "no query"),
        (
            lambda: evaluation.recall_at_k(np.array([[1]]), [set()], 5),
            r"no relevant document for queries \[0\]",
        ),
        (lambda: evaluation.recall_at_k(np.array([[1]]), [{1}, {2}], 5), "1 rankings for 2 queries"),
        (lambda: evaluation.recall_at_k(np.array([[1]]), [{1}], 0), "expected >= 1"),
        (lambda: evaluation.ndcg_at_k(np.array([[1]]), [{1: 0}], 4), "no graded document"),
        (lambda: evaluation.ndcg_at_k(np.array([[1]]), [{1: 1}, {1: 1}], 4), "1 rankings for 2 queries"),
        (lambda: evaluation.ndcg_at_k(np.array([[1]]), [{1: 1}], 0), "expected >= 1"),
        (lambda: evaluation.ndcg_at_k(np.empty((0, 3)), [], 4), "no query"),
        (lambda: evaluation.bootstrap(np.array([]), draws=10, seed=0), "no query"),
        (lambda: evaluation.compare(np.zeros(3), np.zeros(4), draws=10, seed=0), "same queries"),
        (lambda: evaluation.diversity_at_k(np.array([[0, -1]]), np.eye(2), 2), "no query found two"),
    ],
)
def test_no_answer_is_not_an_answer(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_diversity_by_hand_without_the_padding():
    """Row 0: a, a, b: pairs with cosine 1, 0, 0 -> 1 - 1/3. Row 1: b and padding: one document, no pair, left
    out.
    """
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    ranked = np.array([[0, 1, 2, -1], [2, -1, -1, -1]])
    assert evaluation.diversity_at_k(ranked, vectors, 4) == pytest.approx(2 / 3)


def test_a_document_without_words_has_cosine_zero():
    assert evaluation.diversity_at_k(
        np.array([[0, 1]]), np.array([[0.0, 0.0], [0.0, 1.0]]), 2
    ) == pytest.approx(1.0)


def test_bootstrap_by_hand():
    """Of two values 0 and 1 a draw's mean is 0, 1/2, 1 with 1/4, 1/2, 1/4: the 50 % interval is from 0..1/2
    to 1/2..1.
    """
    low, high = evaluation.bootstrap(np.array([0.0, 1.0]), draws=4_000, seed=1, alpha=0.6)
    assert (low, high) == (0.5, 0.5)
    assert evaluation.bootstrap(np.array([0.0, 1.0]), draws=4_000, seed=1, alpha=0.4) == (0.0, 1.0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40), st.integers(0, 5))
def test_swapping_the_sides_mirrors_the_interval(pairs, seed):
    ours, theirs = np.array(pairs).T
    there = evaluation.compare(ours, theirs, draws=200, seed=seed)
    back = evaluation.compare(theirs, ours, draws=200, seed=seed)
    assert there["difference"] == pytest.approx(-back["difference"], abs=1e-12)
    assert (there["low"], there["high"]) == pytest.approx((-back["high"], -back["low"]), abs=1e-12)
    assert there["low"] - 1e-12 <= there["difference"] <= there["high"] + 1e-12 or len(pairs) < 30


def test_bootstrap_agrees_with_the_normal_interval_on_many_queries():
    values = np.random.default_rng(0).binomial(1, 0.3, 4_000).astype(float)
    low, high = evaluation.bootstrap(values, draws=4_000, seed=0)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half * 0.06)


def test_paired_interval_covers_the_true_difference_as_often_as_it_says():
    """1,000 simulated evaluations of 150 paired queries: 95 % nominal. Percentile intervals of means lose
    about half a point at this size; the Monte Carlo error of a share near 0.945 is sqrt(.945 x .055 / 1000) =
    0.7 points: within 3 of it.
    """
    rng = np.random.default_rng(7)
    true, covered, runs = 0.05, 0, 1_000
    for n in range(runs):
        hard = rng.beta(2, 2, 150)
        theirs = rng.binomial(4, hard) / 4
        ours = rng.binomial(4, np.clip(hard * (1 - 2 * true) + 2 * true * 0.75, 0, 1)) / 4
        found = evaluation.compare(ours, theirs, draws=500, seed=n)
        covered += found["low"] <= true * 0.5 <= found["high"]
    assert abs(covered / runs - 0.945) <= 0.022


def test_queries_that_say_the_same_thing_count_once():
    """Each query three times over in a cluster of its own: the interval of the single ones, not one narrower
    by the root of three.
    """
    values = np.random.default_rng(0).normal(size=50)
    given = {"draws": 400, "seed": 1}
    single = evaluation.bootstrap(values, **given)
    thrice, clusters = np.repeat(values, 3), np.repeat(np.arange(50), 3)
    assert evaluation.bootstrap(thrice, clusters=clusters, **given) == pytest.approx(single)
    low, high = evaluation.bootstrap(thrice, **given)
    assert high - low < (single[1] - single[0]) / 1.5
    assert evaluation.bootstrap(values, clusters=np.arange(50)[::-1], **given) != single, "another draw"


def test_a_condensed_ranking_holds_the_judged_documents_in_order():
    ranked = np.array([[5, 2, 9, 1], [5, 2, 9, -1]])
    assert evaluation.condensed(ranked, [{1, 5, 7}, {2}]).tolist() == [[5, 1, -1, -1], [2, -1, -1, -1]]
