"""Queries won and lost, by hand."""

from crops.report import queries


def rows(name, **values):
    """A system's recall@100 by query."""
    return [
        {"set": "qr_raw", "system": name, "query": query, "recall_at_100": value}
        for query, value in values.items()
    ]


REPORT = {"recall_at_100": {"qr_raw": {"crops": 0.6, "bm25": 0.5, "clicks": 0.3}, "truth": None}}


def test_the_challenger_stands_against_the_best_alternative_the_largest_difference_first():
    table = rows("crops", a=1.0, b=0.5, c=0.0, d=1.0) + rows("bm25", a=0.5, b=0.5, c=1.0, d=0.9)
    (found,) = queries.compared(table + rows("clicks", a=0.0), REPORT, most=3)
    assert (found["set"], found["against"]) == ("qr_raw", "bm25")
    assert (found["won"], found["lost"], found["same"], found["left_out"]) == (2, 1, 1, 1)
    assert found["rows"] == [["c", 0.0, 1.0], ["a", 1.0, 0.5], ["d", 1.0, 0.9]]
    assert queries.ends(found["rows"], each=1) == [["a", 1.0, 0.5], ["c", 0.0, 1.0]]


def test_a_set_without_an_alternative_or_without_queries_is_left_out():
    assert queries.compared([], REPORT, most=3) == []
    assert queries.compared(rows("crops", a=1.0), {"recall_at_100": {"qr_raw": {"crops": 1.0}}}, most=3) == []
