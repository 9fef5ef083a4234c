"""What was considered and not chosen, and how events add up, by hand."""

import pyarrow as pa

from crops.mining import stage_samples, testsets
from crops.tables import records
from tests.crops.mining.small_logs import arrow, at, result, search


def rows_of(house, expr):
    found = [tuple(row.values()) for row in house.fetch(expr)]
    return sorted(found, key=lambda row: [(value is None, value) for value in row])


def test_exposed_is_what_was_neither_clicked_nor_liked(house):
    """v1 clicked, v2 liked, v3 watched but neither: exposed; ranked and filtered as they are."""
    hits = [
        result("a", "v1", clicked=True),
        result("a", "v2", liked=True),
        result("a", "v3", play_s=99.0),
        result("a", "v4", stage="ranked"),
        result("a", "v5", stage="filtered"),
    ]
    searches = house.put(arrow(records.SEARCHES, [search("a", "u", at(0), "bread")]), "searches")
    asked = searches.select("search_id", "ts", "query")
    found = stage_samples.stage_samples(asked, house.put(arrow(records.RESULTS, hits), "results"))
    expected = [("bread", v, p, at(0)) for v, p in (("v3", "exposed"), ("v4", "ranked"), ("v5", "filtered"))]
    assert rows_of(house, found.select("query", "video_id", "perspective", "ts")) == expected


def test_cap_per_query_and_stage_keeps_the_most_frequent(house):
    """Room for two: v1 three times, then of v2 and v3, both twice, the smaller id; ranked has its own
    room.
    """
    times = {"v3": 2, "v1": 3, "v2": 2, "v4": 1}
    hits = [result(f"s{i}", v) for v, count in times.items() for i in range(count)] + [
        result("s2", "v4", stage="ranked")
    ]
    searches = house.put(
        arrow(records.SEARCHES, [search(f"s{i}", "u", at(i), "q") for i in range(3)]), "searches"
    )
    samples = stage_samples.stage_samples(searches, house.put(arrow(records.RESULTS, hits), "results"))
    assert rows_of(house, stage_samples.add_up_stages(samples, max_videos=2)) == [
        ("q", "v1", "exposed", None, at(0), 3),
        ("q", "v2", "exposed", None, at(0), 2),
        ("q", "v4", "ranked", None, at(2), 1),
    ]


def test_support_counts_events_once_and_keeps_the_first_time(house):
    """Two rows of event e1 and one of e2: support 2, the earliest time; another later query is another
    candidate.
    """
    columns = {"query": "q", "video_id": "v", "date": "2026-03-01"}
    seen = (("x", "e1", 5), ("x", "e1", 4), ("x", "e2", 9), ("y", "e2", 9))
    events = [{**columns, "later_query": later, "event_id": event, "ts": at(s)} for later, event, s in seen]
    table = house.put(
        pa.Table.from_pylist(events).set_column(5, "ts", pa.array([e["ts"] for e in events], records.TS)),
        "events",
    )
    assert rows_of(house, stage_samples.add_up(table, perspective="reformulation")) == [
        ("q", "v", "reformulation", "x", at(4), 2),
        ("q", "v", "reformulation", "y", at(9), 1),
    ]
    days = ("2026-03-01",)
    assert rows_of(house, testsets.reformulated_pairs(table, days=days)) == [("q", "v", "x"), ("q", "v", "y")]
    assert rows_of(house, testsets.clicked_pairs(table, days=days)) == [("q", "v")]
    assert rows_of(house, testsets.clicked_pairs(table, days=("2026-03-02",))) == []
