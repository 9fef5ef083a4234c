"""What a pair was shown, seen, clicked and played: by hand, against a loop, and of people whose eyes are
known.
"""

import math

import numpy as np
import pyarrow as pa
import pytest

from crops.mining import evidence
from crops.tables import records
from tests.crops.mining.small_logs import arrow, at, result, video

SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("video_id", pa.string()),
        ("position", pa.int32()),
        ("clicked", pa.bool_()),
        ("watched", pa.float64()),
        ("ts", records.TS),
    ]
)


def seen(house, rows, name="seen"):
    """From (video, position, clicked) for one query, a second apart."""
    of = [
        {"query": "q", "video_id": v, "position": p, "clicked": c, "watched": None, "ts": at(n)}
        for n, (v, p, c) in enumerate(rows)
    ]
    return house.put(pa.Table.from_pylist(of, schema=SCHEMA), name)


def test_a_result_counts_as_shown_with_its_played_share_of_a_long_play(house):
    """18 s are a long play, of a video of 4 s all of it; what the engine only ranked nobody saw."""
    searches = [{"search_id": s, "ts": at(n), "query": "q"} for n, s in enumerate("ab")]
    results = [
        result("a", "short", clicked=True, play_s=3.0),
        result("a", "long", liked=True, play_s=40.0),
        result("b", "long", play_s=9.0),
        result("b", "idle"),
        result("b", "ranked", stage="ranked"),
    ]
    videos = [video("short") | {"duration_s": 4.0}, video("long") | {"duration_s": 300.0}, video("idle")]
    schema = pa.schema([("search_id", pa.string()), ("ts", records.TS), ("query", pa.string())])
    rows = evidence.shown(
        house.put(pa.Table.from_pylist(searches, schema=schema), "searches"),
        house.put(arrow(records.RESULTS, results), "results"),
        house.put(arrow(records.VIDEOS, videos), "videos"),
    )
    got = {(r["video_id"], r["ts"]): (r["clicked"], r["watched"]) for r in house.fetch(rows)}
    assert got == {
        ("short", at(0)): (True, 0.75),
        ("long", at(0)): (True, 1.0),
        ("long", at(1)): (False, 0.5),
        ("idle", at(1)): (False, None),
    }


def test_only_pairs_that_stood_at_both_positions_say_how_well_these_are_seen(house):
    """x: clicked 2 of 2 times at 0 and 1 of 2 at 1; y stood at 0 alone, z at 2 alone."""
    rows = [("x", 0, True), ("x", 0, True), ("x", 1, True), ("x", 1, False), ("y", 0, False), ("z", 2, True)]
    assert house.fetch(evidence.neighbours(seen(house, rows))) == [{"position": 0, "here": 2.0, "after": 1.0}]


def test_the_chain_ends_at_the_first_gap_and_never_rises():
    """Ratios 2/4 and, with one click more on each side, 5/2: chained 0.5 and 1.25, which rises. Their
    logarithms -0.693 and 0.223 have the variances 3/4 and 3/4 + 7/10; weighed by these their mean is -0.381.
    """
    rows = [
        {"position": 0, "here": 3.0, "after": 1.0},
        {"position": 1, "here": 1.0, "after": 4.0},
        {"position": 3, "here": 9.0, "after": 1.0},
    ]
    assert evidence.propensities(rows[:1]) == [1.0, 0.5]
    assert evidence.propensities(rows) == pytest.approx([1.0, math.exp(-0.3807), math.exp(-0.3807)], rel=1e-3)
    assert evidence.propensities([]) == [1.0]


def test_positions_that_are_looked_at_alike_come_out_alike():
    """Twenty positions with about a thousand clicks each: chance pulls no end of the list down."""
    rng, last = np.random.default_rng(7), []
    for _ in range(100):
        clicks = rng.poisson(1_000, (19, 2))
        rows = [{"position": k, "here": float(h), "after": float(a)} for k, (h, a) in enumerate(clicks)]
        last.append(evidence.propensities(rows)[-1])
    assert 0.85 < np.mean(last) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_series_is_the_nearest_falling_one(seed):
    """By pooling neighbours that rise, here once more by hand."""
    counts = np.random.default_rng(seed).poisson(20, (30, 2)).astype(float)
    rows = [{"position": k, "here": h, "after": a} for k, (h, a) in enumerate(counts)]
    more = counts + evidence.PRIOR_CLICKS
    values = np.log(more[:, 1] / more[:, 0]).cumsum()
    weights = 1 / (1 / more).sum(axis=1).cumsum()
    expected = np.exp(np.minimum(0, falling(values.tolist(), weights.tolist())))
    assert np.allclose(evidence.propensities(rows), [1, *expected])


def falling(values, weights):
    pools = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        pool = value, weight, 1
        while pools and pools[-1][0] < pool[0]:
            mean, heavy, length = pools.pop()
            both = heavy + pool[1]
            pool = (mean * heavy + pool[0] * pool[1]) / both, both, length + pool[2]
        pools.append(pool)
    return [mean for mean, _weight, length in pools for _ in range(length)]


def test_people_whose_eyes_are_known_are_read_back(house):
    """Clicks of a position-based model with 1 / (1 + position): its chances come out, whatever ranked."""
    rng = np.random.default_rng(5)
    relevance = {f"v{n}": r for n, r in enumerate(rng.uniform(0.1, 0.9, 12))}
    rows = []
    for _ in range(3_000):
        order = sorted(relevance, key=lambda v: -relevance[v] + rng.normal(0, 0.3))[:5]
        for place, name in enumerate(order):
            rows.append((name, place, bool(rng.random() < relevance[name] / (1 + place))))
    chances = evidence.propensities(house.fetch(evidence.neighbours(seen(house, rows))))
    assert np.allclose(chances, [1 / (1 + k) for k in range(5)], atol=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_collected_agrees_with_a_loop(house, seed):
    rng = np.random.default_rng(seed)
    names, chances = ["a", "b", "c"], [1.0, 0.5, 0.25]
    rows = [(str(rng.choice(names)), int(rng.integers(0, 6)), bool(rng.random() < 0.4)) for _ in range(40)]
    mined = [{"query": "q", "video_id": v, "ts": at(100 + n)} for n, v in enumerate("cd")]
    schema = pa.schema([SCHEMA.field(n) for n in ("query", "video_id", "ts")])
    events = house.put(pa.Table.from_pylist(mined, schema=schema), "mined")
    got = {r["video_id"]: r for r in house.fetch(evidence.collected(seen(house, rows), [events], chances))}
    for name in "abcd":
        own = [(n, p, c) for n, (v, p, c) in enumerate(rows) if v == name]
        last = max([at(n) for n, _p, _c in own] + [m["ts"] for m in mined if m["video_id"] == name])
        expected = {
            "shown": len(own),
            "clicked": sum(c for _n, _p, c in own),
            "examined": pytest.approx(sum(chances[min(p, 2)] for _n, p, _c in own)),
            "last_ts": last,
        }
        assert {key: got[name][key] for key in expected} == expected
