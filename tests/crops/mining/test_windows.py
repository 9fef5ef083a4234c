"""Windows from the log's gaps: two kinds of gap are told apart where there are two, and mining keeps to
them.
"""

import numpy as np
import pyarrow as pa
import pytest

from crops.mining import feed, reformulation, windows
from crops.tables import records
from tests.crops.mining.small_logs import arrow, at, search, view
from tests.crops.mining.test_queries import normalised


def test_the_border_lies_between_two_kinds_of_gaps():
    """Gaps of about 20 s and about 2 h, as many of each and as widely spread: the border is half way between
    their logarithms.
    """
    rng = np.random.default_rng(0)
    within, between = rng.lognormal(np.log(20), 0.6, 2_000), rng.lognormal(np.log(7_200), 0.6, 2_000)
    got = windows.learnt({"head": np.concatenate([within, between])}, default_s=90)
    assert got["head"] == pytest.approx(np.sqrt(20 * 7_200), rel=0.1)


def test_few_gaps_and_gaps_of_one_kind_leave_the_setting():
    rng = np.random.default_rng(1)
    one_kind = rng.lognormal(np.log(72), 1.1, 5_000)
    got = windows.learnt({"head": one_kind, "tail": one_kind[:50], "torso": np.zeros(0)}, default_s=90)
    assert got == {"head": 90, "tail": 90, "torso": 90}


def test_the_longer_the_wider_apart_and_never_above_an_hour():
    rng = np.random.default_rng(2)
    days = np.concatenate([rng.lognormal(np.log(9_000), 0.3, 900), rng.lognormal(np.log(9e5), 0.3, 900)])
    assert windows.learnt({"tail": days}, default_s=90)["tail"] == windows.LONGEST_S


def test_gaps_are_those_of_one_user_to_another_wording_by_the_first_query(house):
    rows = [
        *(search(f"h{n}", f"w{n}", at(n), "head") for n in range(20)),
        search("a", "u", at(100), "head"),
        search("b", "u", at(130), "tail"),
        search("c", "u", at(135), "Tail?"),  # the same wording
        search("d", "u", at(235.5), "other"),
        search("e", "v", at(236), "head"),
    ]
    searches = normalised(house, rows)
    bands = house.keep(windows.banded(searches), "bands")
    assert {r["query"]: r["band"] for r in house.fetch(bands)}["head"] == "head"
    got = sorted((r["band"], r["gap_s"]) for r in house.fetch(windows.gaps(searches, bands)))
    assert got == [("head", 30.0), ("tail", 100.5)]


def test_each_first_query_has_its_own_window(house):
    """a: 60 s, b: 10 s, c: none of its own, so the longest. 60 s are within 60 s, 60.000001 s are not."""
    rows = []
    for name, query in (("a", "a"), ("b", "b"), ("c", "c")):
        for n, gap in enumerate((10.0, 60.0, 60.000001)):
            user = f"{name}{n}"
            rows += [search(f"{user}-1", user, at(0), query), search(f"{user}-2", user, at(gap), "later")]
    searches = normalised(house, rows)
    own = house.put(_windows({"a": 60, "b": 10}), "own")
    pairs = house.fetch(reformulation.later_searches(searches, searches, window_s=90, windows=own))
    assert sorted(r["first_id"] for r in pairs) == ["a0-1", "a1-1", "b0-1", "c0-1", "c1-1", "c2-1"]


def _windows(of):
    return pa.table({"query": list(of), "window_s": pa.array(of.values(), pa.int64())})


def test_a_feed_window_ends_where_half_of_the_matching_views_are_by_taste():
    """By taste 5 % of the views match, for the search four times as many up to 600 s: the window is 600 s."""
    rng = np.random.default_rng(0)
    gaps_s = rng.uniform(0, windows.FAR_S[1], 200_000)
    matches = rng.random(len(gaps_s)) < np.where(gaps_s <= 600, 0.2, 0.05)
    got = windows.learnt_of_views({"head": (gaps_s, matches)}, default_s=1_800)
    assert got["head"] == pytest.approx(600, rel=0.05)


def test_views_that_tell_nothing_leave_the_setting():
    """No more matches near than far; too few of them; nothing far away to compare with."""
    gaps_s = np.linspace(0, windows.FAR_S[1], 50_000)
    by_taste, near = np.arange(len(gaps_s)) % 3 == 0, gaps_s <= 600
    told = {
        "head": (gaps_s, by_taste),
        "torso": (gaps_s, near & (np.arange(len(gaps_s)) < windows.LEAST_MATCHES - 1)),
        "tail": (gaps_s[near], near[near]),
    }
    assert windows.learnt_of_views(told, default_s=1_800) == dict.fromkeys(told, 1_800)


def test_views_near_are_of_one_user_within_a_day_and_match_by_anybodys_click(house):
    """Query a is clicked with v1, by another user. Views of u: v1 60 s before, v2 a day after, v1 a second
    later than that; b has no click and is left out, w saw nothing.
    """
    day = windows.FAR_S[1]
    rows = [search("a1", "u", at(day), "a"), search("b1", "u", at(day), "b"), search("a2", "w", at(day), "a")]
    searches = normalised(house, rows)
    views = [view("u", "v1", at(day - 60)), view("u", "v2", at(2 * day)), view("u", "v1", at(2 * day + 1))]
    viewed = feed.feed_views(house.put(arrow(records.FEED, views), "feed"), min_play_s=5.0)
    clicks = house.put(pa.table({"query": ["a", "a"], "video_id": ["v1", "v1"]}), "clicks")
    bands = house.keep(windows.banded(searches), "bands")
    got = house.fetch(windows.views_near(searches, viewed, clicks, bands))
    assert sorted((r["band"], r["gap_s"], r["matches"]) for r in got) == [
        ("tail", 60.0, True),
        ("tail", float(day), False),
    ]
