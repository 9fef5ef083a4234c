"""What the report says first, by hand."""

from crops.report import headline

GAP = {"difference": 0.1, "low": 0.05, "high": 0.15}


def metrics(**recall):
    found = {
        "crops_minus": {"base": GAP, "clicks": GAP, "crops_no_knowledge": {**GAP, "difference": 0.03}},
        "crops_no_knowledge_minus": {"base": {**GAP, "difference": 0.07}},
    }
    return {
        "recall_at_100": {"ct": {"crops": 1.0, "bm25": 0.0}, "qr_raw": recall, "truth": None},
        "intervals": {"qr_raw": found},
    }


def test_the_best_alternative_stands_there_whichever_it_is():
    """The champion and the other variants of ours are no alternatives."""
    found = headline.of(metrics(crops=0.8, base=0.7, bm25=0.2, clicks=0.6, champion=0.9, crops_paper=0.95))
    assert found is not None
    assert (found["set"], found["against"]) == ("qr_raw", "base")
    assert found["recall_at_100"] == {"crops": 0.8, "base": 0.7}
    assert found["difference"]["difference"] == 0.1
    assert headline.sentence(found) == (
        "recall@100 on qr_raw: crops 80.0 %, best alternative base 70.0 %, difference +10.0 points "
        "(95 % interval +5.0 to +15.0)"
    )
    best = headline.of(metrics(crops=0.8, base=0.1, bm25=0.81))
    assert best is not None
    assert (best["against"], best["difference"]) == ("bm25", None), "not measured is said as such"


def test_the_gain_is_split_into_the_logs_and_the_llms():
    """0.07 + 0.03 = 0.1."""
    found = headline.of(metrics(crops=0.8, base=0.7))
    assert found is not None
    assert [found[part]["difference"] for part in ("from_log", "from_llm")] == [0.07, 0.03]


def test_without_a_telling_set_there_is_no_headline():
    assert headline.of({"recall_at_100": {"ct": {"crops": 1.0, "bm25": 0.5}}, "intervals": {}}) is None
