"""P1 by hand: which later searches of a user count, and for which query their videos are kept."""

import pyarrow as pa
import pytest

from crops.mining import queries, reformulation
from crops.tables import records
from tests.crops.mining.small_logs import arrow, at, result, search


def normalised(house, rows):
    raw = house.put(arrow(records.SEARCHES, rows), "raw")
    return house.keep(queries.normalised(raw, house.keep(queries.spellings(raw), "spelled")), "searches")


def pairs(house, rows, window_s=90):
    searches = normalised(house, rows)
    found = reformulation.later_searches(searches, searches, window_s=window_s)
    return sorted((row["first_id"], row["later_id"]) for row in house.fetch(found))


def test_window_ends(house):
    """First search at 1000 s: 0 s later is out, 1 us later and 90 s later are in, 90.000001 s later is
    out.
    """
    later = {"same": 1000, "soon": 1000.000001, "last": 1090, "late": 1090.000001}
    rows = [
        search("first", "u", at(1000), "bread"),
        *(search(k, "u", at(s), f"rolls {k}") for k, s in later.items()),
    ]
    found = pairs(house, rows)
    assert [p for p in found if p[0] == "first"] == [("first", "last"), ("first", "soon")]
    # 90 s after `same`, too; `late` is 90 s after `soon`.
    assert ("same", "last") in found
    assert ("soon", "late") in found


def test_every_later_search_counts_and_no_other_user(house):
    """bread, rolls, soup of u 10 s apart: three pairs, not two; w between them has none."""
    rows = [
        search("a", "u", at(0), "bread"),
        search("x", "w", at(5), "cake"),
        search("b", "u", at(10), "rolls"),
        search("c", "u", at(20), "soup"),
    ]
    assert pairs(house, rows) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_a_query_that_is_equal_after_normalisation_is_no_reformulation(house):
    """Width, case and white space, and the sharp s, whose folding no engine knows; back to the first query is
    none either.
    """
    rows = [
        search("a", "u", at(0), "Straße"),
        search("b", "u", at(10), " STRASSE\u3000"),
        search("c", "u", at(20), "ｓｔｒａｓｓｅ"),
        search("d", "u", at(30), "strasse 1"),
        search("e", "u", at(40), "straSSE"),
        search("f", "u", at(50), " \t"),
    ]
    assert pairs(house, rows) == [("a", "d"), ("b", "d"), ("c", "d"), ("d", "e")]


def test_punctuation_and_the_space_in_an_unspaced_script_are_no_reformulation(house):
    """Only the plural and the emoji are: `sourdough?`, `#sourdough`, zero-width space are the same search."""
    rows = [
        search("a", "u", at(0), "sourdough"),
        search("b", "u", at(10), "Sourdough?"),
        search("c", "u", at(20), "#sour\u200bdough"),
        search("d", "u", at(30), "sourdoughs"),
        search("e", "w", at(0), "红烧肉"),
        search("f", "w", at(10), "红烧 肉！"),
        search("g", "w", at(20), "红烧肉🍖"),
    ]
    assert pairs(house, rows) == [("a", "d"), ("b", "d"), ("c", "d"), ("e", "g"), ("f", "g")]


def test_windows_cross_midnight_and_any_edge_of_a_bucket(house):
    """Every offset of the first search: the pair 90 s apart is found whatever multiple of the window lies
    between.
    """
    rows = []
    for offset in (*range(0, 500, 7), 86_350, 86_399.999999):
        rows += [
            search(f"f{offset}", f"u{offset}", at(offset), "bread"),
            search(f"l{offset}", f"u{offset}", at(offset + 90), "rolls"),
        ]
    assert len(pairs(house, rows)) == len(rows) // 2


def test_videos_of_the_later_search_for_the_first_query(house):
    """u: bread, then rolls where v1 is clicked, v2 played 5 s, v3 played 4.9 s, v4 untouched -> (bread, v1),
    (bread, v2).

    bread was searched twice before rolls: two rows a video, one event, the later search; dated as the first
    search, timed as the later one. The first search's own click is not its reformulation's.
    """
    rows = [
        search("a", "u", at(86_390), "bread"),
        search("b", "u", at(86_395), "bread"),
        search("c", "u", at(86_410), "rolls"),
    ]
    hits = [
        result("a", "v0", clicked=True),
        result("c", "v1", clicked=True),
        result("c", "v2", play_s=5.0),
        result("c", "v3", play_s=4.9),
        result("c", "v4"),
    ]
    touched = house.keep(
        queries.interacted(house.put(arrow(records.RESULTS, hits), "results"), min_play_s=5.0), "touched"
    )
    found = house.fetch(reformulation.reformulations(normalised(house, rows), touched, window_s=90))
    one = {"query": "bread", "later_query": "rolls", "ts": at(86_410), "date": "2026-03-01", "event_id": "c"}
    expected = [{**one, "video_id": v} for v in ("v1", "v1", "v2", "v2")]
    assert sorted(found, key=lambda row: row["video_id"]) == expected


def test_a_later_search_without_interaction_leads_nowhere(house):
    rows = [search("a", "u", at(0), "bread"), search("b", "u", at(10), "rolls")]
    hits = house.put(arrow(records.RESULTS, [result("a", "v0", clicked=True), result("b", "v1")]), "results")
    touched = queries.interacted(hits, min_play_s=5.0)
    assert house.fetch(reformulation.reformulations(normalised(house, rows), touched, window_s=90)) == []


@pytest.mark.parametrize("engine", ["duckdb"], indirect=True)
def test_cost_is_bounded_by_what_a_user_searches_in_a_window(house):
    """20,000 searches of one user 100 s apart: 2 x 10^8 pairs on the user alone; the plan must look at few of
    them.

    The planted fault of an open self-join would need minutes; here the joined rows are counted, not the time.
    """
    count = 20_000
    rows = pa.table(
        {
            "search_id": [f"s{i}" for i in range(count)],
            "user_id": ["u"] * count,
            "query": [f"q{i}" for i in range(count)],
            "wording": [f"q{i}" for i in range(count)],
            "ts": pa.array([at(100 * i) for i in range(count)], records.TS),
            "date": ["2026-03-01"] * count,
        }
    )
    searches = house.put(rows, "searches")
    found = reformulation.later_searches(searches, searches, window_s=90)
    assert house.backend.to_pyarrow(found.count()).as_py() == 0
    plan = house.backend.raw_sql("EXPLAIN ANALYZE " + str(house.backend.compile(found))).fetchall()[0][1]
    sizes = [
        int(word.replace(",", ""))
        for word in plan.replace("│", " ").split()
        if word.replace(",", "").isdigit()
    ]
    assert count <= max(sizes) <= 8 * count, plan
