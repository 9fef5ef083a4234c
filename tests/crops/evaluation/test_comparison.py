"""Rows against one another over seeds: differences by hand, the seed's own spread counted, claims read as
they stand.
"""

import math

import pandas as pd
import pytest

from crops import perspectives
from crops.evaluation import claims, comparison
from crops.retriever import ablations, systems


def per_query(values, *, name="truth"):
    """values: {(system, seed): [recall of each query]}"""
    rows = [
        {
            "set": name,
            "system": system,
            "seed": seed,
            "query": f"q{n}",
            "recall_at_100": x,
            "recall_at_20": x,
            "ndcg_at_4": None,
        }
        for (system, seed), xs in values.items()
        for n, x in enumerate(xs)
    ]
    return pd.DataFrame(rows).astype({"ndcg_at_4": float})


def test_a_paired_difference_by_hand():
    """One seed: gaps 0.1, 0.3, 0.2, 0.2: mean 0.2, variance 0.02 / 3, standard error sqrt(0.02 / 3 / 4) =
    0.0408, and Student's t of 3 degrees of freedom is 3.1824 at 97.5 %.
    """
    rows = per_query({("a", 0): [0.5, 0.6, 0.7, 0.8], ("b", 0): [0.4, 0.3, 0.5, 0.6]})
    found = comparison.difference(rows, "a", "b")
    assert found["queries"] == 4
    assert found["difference"] == pytest.approx(0.2)
    assert found["high"] - 0.2 == pytest.approx(3.1824 * math.sqrt(0.02 / 3 / 4), abs=1e-4)
    assert comparison.difference(rows, "a", "nobody") is None


def test_one_query_has_no_interval_and_shows_no_claim():
    rows = per_query({("a", 0): [1.0], ("b", 0): [0.0], ("a", 1): [1.0], ("b", 1): [0.0]})
    assert comparison.difference(rows, "a", "b") is None


def test_what_another_seed_turns_round_is_no_difference():
    """Every query gains 0.1 with seed 0 and loses 0.1 with seed 1: no spread over queries, all of it over
    seeds.

    Means +0.1 and -0.1: variance 0.02, halved by two seeds, known with one degree of freedom: ±12.706 * 0.1.
    """
    rows = per_query({("a", 0): [0.6] * 9, ("b", 0): [0.5] * 9, ("a", 1): [0.5] * 9, ("b", 1): [0.6] * 9})
    found = comparison.difference(rows, "a", "b")
    assert (found["low"], found["high"]) == pytest.approx((-1.2706, 1.2706), abs=1e-3)


def test_queries_of_one_chain_count_once():
    """Each query twice, and both in a chain: as if it stood there once; one chain alone has no interval."""
    once = per_query({("a", 0): [0.5, 0.6, 0.7, 0.8], ("b", 0): [0.4, 0.3, 0.5, 0.6]})
    twice = pd.concat([once, once.assign(query=once["query"] + " again")])
    chained = twice.assign(chain=[40 + int(q[1]) for q in twice["query"]])
    expected = comparison.difference(once, "a", "b")
    assert comparison.difference(chained, "a", "b") == expected | {"queries": 8}
    assert comparison.difference(twice.assign(chain=math.nan), "a", "b")["high"] < expected["high"]
    assert comparison.difference(chained.assign(chain=3), "a", "b") is None


@pytest.mark.parametrize(
    ("gap", "paper", "said"),
    [
        (0.1, 2.0, "appears"),
        (-0.1, 2.0, "the other way round"),
        (0.0, 2.0, "not seen"),
        (0.1, None, "not measured"),
    ],
)
def test_a_claim_is_read_by_its_sign_and_its_interval(gap, paper, said):
    found = {"difference": gap, "low": gap - 0.05, "high": gap + 0.05}
    assert comparison._against_paper(found, paper) == said


def test_a_planted_collapse_is_found_and_the_choice_is_held_to_half_a_point():
    every = {
        "anchors >= 1": 0.80,
        "anchors >= 3": 0.85,
        "anchors >= 4": 0.90,
        "binary labels": 0.70,
        "chosen by the log": 0.893,
    }
    recall = {**every, claims.FULL: 0.80}

    def measured(name, shift):
        values = {(row, 0): [x + shift + n / 1000 for n in range(20)] for row, x in recall.items()}
        return per_query(values, name=name).drop(columns="seed")

    seeds = [
        pd.concat([measured(name, shift) for name in ("ct", "qr_relevant", "truth")])
        for shift in (0.0, 0.001)
    ]
    found = comparison.compared(seeds, ["perspectives", "hierarchy"])
    collapse = next(c for c in found["claims"]["perspectives"] if c["row"] == "binary labels")
    assert collapse["shows"] == {"ct": "appears", "qr": "appears", "truth": "appears"}
    assert collapse["sets"]["truth"]["difference"] == pytest.approx(-0.1)
    assert found["hierarchy"]["sets"]["truth"] == {"best": "anchors >= 4", "gap": pytest.approx(-0.007)}
    assert not found["hierarchy"]["within_half_a_point"]
    assert "not within half a point" in found["findings"][-1]


def test_every_row_of_every_table_is_a_variant_and_every_claim_a_row():
    known = ablations.variants("filtered")
    assert claims.TABLES
    for table in claims.TABLES.values():
        assert set(table.rows) <= known.keys()
        assert {c.row for c in table.claims} <= set(table.rows)
        assert set(table.paper) <= set(table.rows)
        assert {name for c in table.claims for name in (c.row, c.against)} <= set(table.rows) | {"clicks"}


def test_a_registered_perspective_is_left_out_in_a_row_of_its_own(monkeypatch):
    """`saved` gives two points on what nobody found yet: that, and nothing of the paper, is what is said."""
    assert claims.tables() == claims.TABLES
    row = perspectives.Perspective(name="saved", label=4, table="feed", mine=lambda searches, rows: rows)
    monkeypatch.setitem(perspectives._registered, "saved", row)
    table = claims.tables()[claims.REGISTERED]
    assert table.rows == (claims.FULL, "without saved")
    variants = ablations.variants("filtered")
    assert set(table.rows) <= variants.keys()
    left = variants["without saved"].system
    seen = {name for name in perspectives.names() if systems.sees(left, name)}
    assert seen == set(perspectives.names()) - {"saved"}
    assert (left.loss, left.anchors_from) == (variants[claims.FULL].system.loss, "filtered")
    recall = {(claims.FULL, 0): [0.52] * 4, ("without saved", 0): [0.5] * 4}
    seeds = [per_query(recall, name="cold_start").drop(columns="seed")]
    compared = comparison.compared(seeds, [claims.REGISTERED])
    (claim,) = compared["claims"][claims.REGISTERED]
    assert claim["sets"]["cold_start"]["difference"] == pytest.approx(0.02)
    assert (claim["says"], claim["paper_ct"], compared["findings"]) == ("saved adds", None, [])


def test_the_papers_steps_are_the_differences_of_the_papers_rows():
    """Two ways to the same numbers: the claims were typed from the text, the rows from its tables."""
    for table in claims.TABLES.values():
        for claim in table.claims:
            if claim.paper_ct is not None:
                ours, theirs = table.paper[claim.row], table.paper[claim.against]
                assert (claim.paper_ct, claim.paper_qr) == pytest.approx(
                    (ours[0] - theirs[0], ours[1] - theirs[1]), abs=0.051
                )


def test_tokens_a_point_are_of_what_the_row_without_knowledge_lacks():
    """60,000 tokens for 90 - 87 points are 20,000 each; a row that gains nothing has no price, nor has any
    where nobody measured without.
    """
    recall = {"all": 0.90, "checked": 0.86, claims.WITHOUT: 0.87}
    values = {"truth": {name: {"recall_at_100": x} for name, x in recall.items()}}
    tokens = {"all": 60_000, "checked": 130_000, claims.WITHOUT: 0}
    rows = {name: {"tokens": n} for name, n in tokens.items()}
    comparison.priced(rows, values)
    assert [row["tokens_a_point"] for row in rows.values()] == [20_000, None, None]
    del values["truth"][claims.WITHOUT]
    comparison.priced(rows, values)
    assert rows["all"]["tokens_a_point"] is None
