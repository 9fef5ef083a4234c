"""Results side by side, by hand."""

from crops.report import beside

COMPARED = [
    {
        "set": "truth",
        "against": "clicks_mnrl",
        "rows": [["w1", 1.0, 0.0], ["w2", 0.9, 0.0], ["w3", 0.8, 0.0], ["l", 0.0, 0.5], ["same", 1.0, 1.0]],
    }
]
PAIR = {"doc_id": "d", "label": 4, "support": 2, "later_query": None}
PAIRS = [
    {**PAIR, "query": "head", "perspective": "click"},
    {**PAIR, "query": "w1", "perspective": "feed", "label": 5},
    {**PAIR, "query": "b", "perspective": "feed"},
    {**PAIR, "query": "c", "perspective": "click"},
]


def test_most_won_and_most_lost_are_chosen_and_then_the_rest():
    assert beside.chosen(COMPARED, most=4) == {"truth": ["w1", "w2", "l", "w3"]}
    assert beside.chosen(COMPARED, most=9) == {"truth": ["w1", "w2", "w3", "l", "same"]}


def test_what_the_challenger_is_measured_against_stands_there_too():
    assert beside.sides(COMPARED) == ("bm25", "base", "clicks", "clicks_mnrl", "crops")


def test_a_result_has_the_pairs_that_its_system_was_shown_its_own_query_first():
    """BM25 and the base learn nothing; clicks saw the two clicks; crops all four, and three are shown."""
    sides = beside.SIDES
    row = {"query": "w1", "rank": 1, "doc_id": "d", "sets": ["truth"]}
    tops = [{**row, "system": name} for name in sides[:3]] + [{**row, "system": "crops", "sets": ["ct"]}]
    shown = beside.of({"truth": ["w1"]}, sides, tops, PAIRS, {"d": "a caption"})
    assert shown["systems"] == [["BM25", 0], ["Base", 0], ["Clicks", 1], ["CroPS", 1]]
    assert shown["documents"] == [["d", "a caption"]]
    words, base, clicks, crops = shown["sets"]["truth"]["w1"]
    assert words == base == [[0, 1, [], 0]]
    queries = [[shown["pairs"][n][0] for n in answer[0][2]] for answer in (clicks, crops)]
    assert queries == [["head", "c"], ["w1", "head", "b"]]
    assert [answer[0][1:2] + answer[0][3:] for answer in (clicks, crops)] == [[1, 0], [0, 1]]
    assert shown["pairs"][shown["sets"]["truth"]["w1"][3][0][2][0]] == ["w1", "feed", 5, 2, None]
