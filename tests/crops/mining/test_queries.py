"""Normalised searches, bots, interactions, and what is counted per query, by hand."""

from crops.mining import click, queries
from crops.tables import records
from tests.crops.mining.small_logs import arrow, at, result, search


def normalised(house, rows):
    raw = house.put(arrow(records.SEARCHES, rows), "raw")
    return house.keep(queries.normalised(raw, house.keep(queries.spellings(raw), "spelled")), "searches")


def test_normalised_by_the_one_function_and_dated_in_utc(house):
    """NFKC, folding and white space as in crops.text, on either engine; an empty query is left out; days end
    at 24:00 UTC.
    """
    rows = [
        search("a", "u", at(86_399.999999), "  Ｓｏｕｒ\tDOUGH "),
        search("b", "u", at(86_400), "ΣΊΣΥΦΟΣ"),
        search("c", "u", at(0), " \u3000"),
        search("d", "u", at(1), "ﬁsh"),
    ]
    found = sorted((r["search_id"], r["query"], r["date"]) for r in house.fetch(normalised(house, rows)))
    assert found == [
        ("a", "sour dough", "2026-03-01"),
        ("b", "σίσυφοσ", "2026-03-02"),
        ("d", "fish", "2026-03-01"),
    ]


def test_bots_are_left_out_for_the_day_on_which_they_are_bots(house):
    """Three a day allowed: u has three on day 0 and four on day 1, w four on day 0."""
    rows = [search(f"u0{i}", "u", at(i), "q") for i in range(3)] + [
        search(f"u1{i}", "u", at(i, day=1), "q") for i in range(4)
    ]
    rows += [search(f"w0{i}", "w", at(i), "q") for i in range(4)]
    found = house.fetch(queries.ordinary(normalised(house, rows), max_per_user_day=3))
    assert sorted(r["search_id"] for r in found) == ["u00", "u01", "u02"]


def test_click_and_like_are_clicks_and_a_long_play_is_an_interaction(house):
    hits = [
        result("a", "v1", clicked=True),
        result("a", "v2", liked=True),
        result("a", "v3", play_s=5.0),
        result("a", "v4", play_s=4.9),
        result("a", "v5"),
    ]
    searches = normalised(house, [search("a", "u", at(7), " Bread")])
    touched = house.keep(
        queries.interacted(house.put(arrow(records.RESULTS, hits), "results"), min_play_s=5.0), "touched"
    )
    assert sorted((r["video_id"], r["clicked"]) for r in house.fetch(touched)) == [
        ("v1", True),
        ("v2", True),
        ("v3", False),
    ]
    one = {"query": "bread", "ts": at(7), "date": "2026-03-01", "event_id": "a"}
    found = sorted(house.fetch(click.clicks(searches, touched)), key=lambda row: row["video_id"])
    assert found == [{**one, "video_id": "v1"}, {**one, "video_id": "v2"}]


def test_summary_counts_searches_and_searches_with_a_click(house):
    """bread: three searches of two users before the held-out day, one with two clicks (counted once), one on
    it; rolls only on it.
    """
    rows = [
        search("a", "u", at(0), "bread"),
        search("b", "u", at(9), "Bread"),
        search("e", "w", at(9), "bread"),
        search("c", "u", at(0, day=1), "bread"),
        search("d", "u", at(5, day=1), "rolls"),
    ]
    hits = [result("a", "v1", clicked=True), result("a", "v2", clicked=True), result("c", "v1", play_s=9.0)]
    touched = queries.interacted(house.put(arrow(records.RESULTS, hits), "results"), min_play_s=5.0)
    found = house.fetch(queries.summary(normalised(house, rows), touched, first_test_day="2026-03-02"))
    assert sorted(tuple(r.values()) for r in found) == [
        ("bread", "test", 1, 0, 1),
        ("bread", "train", 3, 1, 2),
        ("rolls", "test", 1, 0, 1),
    ]


def test_gaps_are_between_consecutive_searches_of_one_user(house):
    """u at 0, 60, 151 s: gaps 60 and 91 s, median 75.5 s, one within 90 s; w searched once."""
    rows = [search(f"s{t}", "u", at(t), "q") for t in (0, 60, 151)] + [search("w", "w", at(30), "q")]
    found = house.fetch(queries.gap_summary(queries.gaps(normalised(house, rows)), (60, 90)))
    assert found == [{"gaps": 2, "median_s": 75.5, "within_60_s": 1, "within_90_s": 1}]
