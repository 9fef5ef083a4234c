"""Windows from the log's gaps: two kinds of gap are told apart where there are two, and mining keeps to
them.
"""

import numpy as np
import pytest

from crops.mining import reformulation, windows
from tests.crops.mining.small_logs import at, search
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
    import pyarrow as pa

    return pa.table({"query": list(of), "window_s": pa.array(of.values(), pa.int64())})
