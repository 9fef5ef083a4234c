"""Sums by user and day: a log by hand, engines that agree, and the same moments as rows in memory give."""

from datetime import timedelta

import ibis
import pandas as pd

from crops.experiment import readout, stats, sums, totals
from crops.experiment.metrics import METRICS
from crops.mining import queries, reformulation
from crops.tables import records
from tests.crops.experiment import logs
from tests.crops.experiment.logs import START, arrow, result, search, video

HOUR = timedelta(hours=1)


def prepared(house, searches, results, videos, *, window_s=90):
    raw = house.put(arrow(records.SEARCHES, searches), "raw")
    spelled = house.keep(queries.spellings(raw), "spelled")
    joined = queries.normalised(raw, spelled).join(raw.select("search_id", "arm"), "search_id")
    every = house.keep(joined, "every")
    since = min(s["ts"] for s in searches if s["arm"])
    mine = house.keep(sums.within(every, since=since, until=None), "mine")
    shown = sums.shown(
        house.put(arrow(records.RESULTS, results), "results"),
        house.put(arrow(records.VIDEOS, videos), "videos"),
    )
    later = reformulation.later_searches(mine, every, window_s=window_s).select(search_id="first_id")
    settled = max(s["ts"] for s in searches) - timedelta(seconds=window_s)
    return house.keep(sums.user_days(mine, shown, later, settled_until=settled), "days"), mine


def test_a_log_by_hand(house):
    """u (control): two searches 30 s apart, the first reformulated; 3 shown, 1 clicked, long plays: 18 of 60
    and 9 of 9.

    w (treatment): one search before the start (pre-period), one during it, one at the very end, which is not
    settled. x searched without an arm during the experiment: not in it.
    """
    t = START + 10 * HOUR
    searches = [
        search("a", "u", t, "bread", "control"),
        search("b", "u", t + timedelta(seconds=30), "rolls", "control"),
        search("p", "w", t - HOUR, "bread"),
        search("c", "w", t + HOUR, "Bread", "treatment"),
        search("e", "w", t + 2 * HOUR, "soup", "treatment"),
        search("x", "x", t + HOUR, "bread"),
    ]
    results = [
        result("a", "v60", clicked=True, play_s=18.0),
        result("a", "v60b", play_s=17.9),
        result("b", "v9", play_s=9.0),
        result("a", "v9", stage="ranked"),
        result("c", "gone", play_s=18.0),
        result("c", "v9", play_s=None),
        result("p", "v60"),
    ]
    days, _ = prepared(house, searches, results, [video("v60"), video("v60b"), video("v9", 9.0)])
    found = {(r["user_id"], r["arm"]): [0] * 6 for r in house.fetch(days)}
    for row in house.fetch(days):
        cell = found[row["user_id"], row["arm"]]
        found[row["user_id"], row["arm"]] = [
            have + row[name] for have, name in zip(cell, records.COUNTS, strict=True)
        ]
    assert found == {  # searches, settled, reformulated, impressions, clicks, long plays
        ("u", "control"): [2, 2, 1, 3, 1, 2],
        ("w", None): [1, 1, 0, 1, 0, 0],
        ("w", "treatment"): [2, 1, 0, 2, 0, 1],
    }


def test_bands_are_thirds_of_a_days_searches(house):
    """9 searches: bread 4, rolls 2, soup, stew, cake 1 each. Before bread 0 of 9: head; before rolls 4 >= 3:
    torso; before cake 6 >= 6: tail.
    """
    texts = ["bread"] * 4 + ["rolls"] * 2 + ["soup", "stew", "cake"]
    rows = [search(str(n), "u", START + n * HOUR, text, "control") for n, text in enumerate(texts)]
    raw = house.put(arrow(records.SEARCHES, rows), "raw").mutate(date=ibis.literal("2026-02-01"))
    found = {row["query"]: row["band"] for row in house.fetch(sums.bands(raw))}
    assert found == {"bread": "head", "rolls": "torso", "soup": "tail", "stew": "tail", "cake": "tail"}


def test_recall_paths_by_hand(house):
    """Three ranked items with known paths, two of them shown; dense brought two ranked, one shown; one item
    is of both.
    """
    rows = [search("a", "u", START, arm="treatment"), search("b", "u", START)]
    results = [
        result("a", "v1", paths=["dense", "lexical"]),
        result("a", "v2", paths=["lexical"]),
        result("a", "v3"),
        result("a", "v4", stage="ranked", paths=["dense"]),
        result("a", "v5", stage="filtered", paths=["dense"]),
        result("b", "v1", paths=["dense"]),
    ]
    searches = house.put(arrow(records.SEARCHES, rows), "raw").mutate(date=ibis.literal("2026-02-01"))
    found = house.fetch(sums.path_days(searches, house.put(arrow(records.RESULTS, results), "results")))
    assert readout.ratios(found) == {
        "treatment": {
            "dense": {"ratio_rank": 2 / 3, "ratio_show": 1 / 2, "ranked": 2, "shown": 1},
            "lexical": {"ratio_rank": 2 / 3, "ratio_show": 1.0, "ranked": 2, "shown": 2},
        }
    }


def events_of(metric, searches, results, videos):
    """What `compare` is given for that metric, put together without any engine."""
    by_id, length = {s["search_id"]: s for s in searches}, {v["video_id"]: v["duration_s"] for v in videos}
    if metric != "rqr":
        shown = [r for r in results if r["stage"] == "exposed"]
        return pd.DataFrame(
            [by_id[r["search_id"]] | r | {"duration_s": length.get(r["video_id"])} for r in shown]
        )
    of_user = {}
    for s in searches:
        of_user.setdefault(s["user_id"], []).append((s["ts"], s["query"]))
    settled = max(s["ts"] for s in searches) - timedelta(seconds=90)

    def again(s):
        return any(
            q != s["query"] and 0 < (ts - s["ts"]).total_seconds() <= 90 for ts, q in of_user[s["user_id"]]
        )

    return pd.DataFrame([s | {"reformulated": again(s)} for s in searches if s["ts"] <= settled])


def test_sums_on_an_engine_agree_with_rows_in_memory(house):
    """Both ways from the same log, pre-period and a user in both arms included: the same moments, hence the
    same answer.
    """
    searches, results, videos = logs.experiment(users=60, days=2, lift=0.3)
    searches.append(search("both", "u1", START + 47 * HOUR, "bread", "control"))
    results.append(result("both"))
    days, _ = prepared(house, searches, results, videos)
    people = house.keep(sums.people(days), "people")
    in_both = house.fetch(people.agg(n=(people.arms > 1).sum()))[0]["n"]
    rows = house.fetch(sums.moments(days, people.filter(people.arms == 1)))
    for name, metric in METRICS.items():
        found = sums.arms_of(rows, metric, in_both=in_both)
        expected = totals.of_events(events_of(name, searches, results, videos), metric)
        assert expected.in_both == found.in_both == 1
        # A user of the arm without a single impression is a user on the engine only; here every search shows
        # something.
        assert (found.control, found.treatment) == (expected.control, expected.treatment), name
        assert stats.decide(found, metric) == stats.decide(expected, metric)
