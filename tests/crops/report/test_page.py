"""The page: what it must say, what it must not break on, and how it looks on a phone in a real browser."""

import re
from pathlib import Path

import pytest

from crops.evaluation import sets
from crops.report import charts, headline, names, page
from crops.retriever.systems import SHOWN

SYSTEMS = ("bm25", "clicks", "crops")


def report(*, grades: bool = True, verdict: str = "promote") -> dict:
    recall = {
        "ct": [0.9, 0.95, 0.96],
        "qr_raw": [0.5, 0.6, 0.7],
        "truth": [0.4, 0.8, 0.9] if grades else None,
    }
    rows = {
        name: dict(zip(SYSTEMS, values, strict=True)) if values else None for name, values in recall.items()
    }
    spread = {name: {s: [v - 0.01, v + 0.01] for s, v in row.items()} for name, row in rows.items() if row}
    for found in spread.values():
        found["crops_minus"] = {"clicks": {"difference": 0.1, "low": 0.08, "high": 0.12}}
    return {
        "headline": headline.of({"recall_at_100": rows, "intervals": spread}),
        "recall_at_100": rows,
        "recall_at_20": rows,
        "ndcg_at_4": dict.fromkeys(SYSTEMS, 0.5 if grades else None),
        "intervals": spread,
        "counts": {"ct": 10, "qr_raw": 9, "truth": 8 if grades else None},
        "ladder": {"4": 0.8},
        "hierarchy": {"reason": "anchors >= 4: measured", "anchor_min_candidates": [4]},
        "seconds": {"train crops": 2.0, "score": 1.0},
        "gate": {"verdict": verdict, "reasons": ["a reason"]},
        "release": {"uri": "models:/crops/2", "alias": "challenger"},
    }


def parts() -> dict:
    example = {"query": "<script>alert(1)</script>", "later_query": "b", "text": "c & d"}
    rungs = {"theta": {"4": {"share": 0.8, "low": 0.7, "high": 0.9, "pairs": 9}}, "truth": None}
    return {
        "augment": {
            "perspectives": {"reformulation": {"candidates": 1234, "queries": 7, "examples": [example]}}
        },
        "knowledge": {},
        "discriminate": {"thresholds": {}},
        "evaluate": {},
        "label": {"rungs": rungs},
        "notes": ["feed: no table"],
        "memory_gb": {"train crops": 1.25},
        "gate": {
            "challenger": "crops",
            "champion": "clicks",
            "checks": [{"name": "better", "passed": None, "reason": "few"}],
        },
        "train": {
            "crops": {
                "checks": [{"step": 0, "loss": None, "valid_recall_at_100": 0.1}],
                "hierarchy": {"anchor_min": 4},
            }
        },
        "stages": [
            {"stage": "discriminate", "numbers": {"kept_reformulation": 55}},
            {
                "stage": "score",
                "numbers": {
                    "pairs_scored": 5372,
                    "dual_alone_ratio": 0.973,
                    "dual_pairs_per_s": 48000,
                    "cross_pairs_per_s": 2300,
                },
            },
        ],
    }


def render(**options: object) -> str:
    evil = [["</script><script>alert(2)", 1.0, 0.5], ["b", 0.0, 1.0]]
    compared = [
        {"set": "qr_raw", "against": "clicks", "won": 1, "lost": 1, "same": 0, "left_out": 0, "rows": evil}
    ]
    answers = [[], [[0, 1, [0], 2]]]
    side_by_side = {
        "systems": [["BM25", 0], ["CroPS", 1]],
        "documents": [["v1", "</script><b>sour</b>"]],
        "pairs": [["<i>typed</i>", "feed", 5, 1200, "later"]],
        "sets": {"qr_raw": {"b": answers}},
    }
    shown = {"title": "A title", "examples": 3, "simulated": True, "compared": compared}
    shown["side_by_side"] = side_by_side
    return page.render(report(**options), parts(), **shown)


OWN_SCRIPT = "<script>" + Path(page.__file__).with_name("queries.js").read_text(encoding="utf-8").rstrip()


def test_a_set_has_its_name_in_place_of_its_code():
    assert names.plain("recall@100 on qr_raw: 1; qr_tail; product") == (
        "recall@100 on “After a reformulation”: 1; “After a reformulation, rare queries”; product"
    )
    assert set(names.SET_NAMES) == set(names.SETS)
    assert set(names.SET_NAMES) == set(sets.named({sets.COLD_START}))
    assert set(names.SYSTEMS) == set(names.SYSTEM_MEANS) == set(names.SYSTEM_COLOURS) == set(SHOWN)


def test_a_set_that_a_setting_adds_is_on_the_page_only_where_it_was_measured():
    """Others are there in any case, and say so where nobody knows them."""
    plain = report()
    with_it = plain["recall_at_100"] | {"cold_start": plain["recall_at_100"]["ct"]}
    for recall, shown in ((plain["recall_at_100"], False), (with_it, True)):
        made = page.render(plain | {"recall_at_100": recall}, parts(), title="A", examples=1, simulated=True)
        assert ("New documents" in made) is shown
        assert "New queries" in made


@pytest.mark.browser
def test_queries_won_and_lost_are_found_by_their_words(tmp_path, chromium):
    (tmp_path / "report.html").write_text(render(), encoding="utf-8")
    tab = chromium.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"file://{tmp_path}/report.html")
    assert tab.locator("#queries-body tr").count() == 2
    tab.select_option("#queries-kind", "lost")
    assert tab.inner_text("#queries-body").split() == ["b", "0.0", "100.0", "−100.0"]
    tab.select_option("#queries-kind", "all")
    tab.fill("#queries-search", "ALERT")
    assert tab.inner_text("#queries-body th") == "</script><script>alert(2)"
    tab.fill("#queries-search", "nothing of it")
    assert tab.inner_text("#queries-said") == "0 of 0 shown"
    assert not errors


@pytest.mark.browser
def test_a_query_opens_what_the_systems_answer_with_what_it_was_learnt_from(tmp_path, chromium):
    (tmp_path / "report.html").write_text(render(), encoding="utf-8")
    tab = chromium.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"file://{tmp_path}/report.html")
    assert tab.locator("#queries-body button").all_inner_texts() == ["b"], "the page holds no other's results"
    tab.focus("#queries-body button")
    tab.keyboard.press("Enter")
    words, ours = (" ".join(side.inner_text().split()) for side in tab.locator(".sides > div").all())
    assert words == "BM25 nothing"
    pair = "feed <i>typed</i>: through “later”, 1,200 × in the log, label 5"
    assert ours == f"CroPS </script><b>sour</b> ✓ counts {pair} and 2 more"
    tab.keyboard.press("Enter")
    assert tab.locator(".sides").count() == 0
    assert not errors


def test_the_headline_compares_with_the_best_alternative_on_the_most_telling_set():
    """truth: 0.9 against 0.8, interval 8 to 12 points; without grades qr_raw: 0.7 against 0.6."""
    text = " ".join(re.sub(r"<[^>]+>", "", render()).split())
    assert len(set(names.SYSTEM_COLOURS.values())) == len(SHOWN), "no two systems in one colour"
    rivals = "the best of what you have without it (BM25, Clicks)"
    assert f"CroPS finds 90.0 % where Clicks, {rivals}, finds 80.0 %" in text
    assert "finds 80.0 %, a difference of +10.0 points (95 % interval +8.0 to +12.0)." in text
    assert f"CroPS finds 70.0 % where Clicks, {rivals}, finds 60.0 %" in " ".join(
        re.sub(r"<[^>]+>", "", render(grades=False)).split()
    )


def test_it_is_self_contained_escapes_what_users_typed_and_says_that_it_is_simulated():
    html = render()
    assert not re.findall(r"(?:src|href)=\"(?!#|data:,)", html)
    assert "<script" not in html.replace('<script type="application/json"', "").replace(OWN_SCRIPT, "")
    assert "&lt;script&gt;" in html
    assert "Simulated data." in html


def test_an_unanswered_check_and_a_missing_set_are_shown_as_unknown():
    html = render(grades=False, verdict="unknown")
    assert '<b class="open">?</b>' in html
    assert "(not known on this log)" in html


def test_same_values_same_bytes():
    series = {"a": {"x": (0.5, 0.4, 0.6)}, "b": {"x": (0.6, 0.5, 0.7)}}
    assert charts.intervals(series, x="x") == charts.intervals(series, x="x")
    assert render() == render()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_it_fits_a_phone_and_a_desk(tmp_path, chromium, width):
    (tmp_path / "report.html").write_text(render(), encoding="utf-8")
    tab = chromium.new_page(viewport={"width": width, "height": 900})
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"file://{tmp_path}/report.html")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert tab.locator("svg").count() >= 3
    tab.screenshot(path=str(tmp_path / "page.png"), full_page=True)
    assert not errors


def test_queries_of_each_script_and_vocabulary_stand_in_a_table_of_their_own():
    """Two scripts on one set: recall, number of queries, and the difference with its interval."""
    told, made = parts(), report()
    told["evaluate"] = {"scripts": {"qr_raw": {s: dict.fromkeys(SYSTEMS, 0.5) for s in ("han", "latin")}}}
    made["counts"] |= {"qr_raw_han": 41, "qr_raw_latin": 35}
    made["intervals"]["qr_raw_han"] = {"crops_minus": {"bm25": {"difference": 0.1, "low": 0.0, "high": 0.2}}}
    html = page.render(made, told, title="A title", examples=3, simulated=False)
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "Recall@100 by the script of the query, %" in text
    assert "After a reformulation han 41 50.0 50.0 50.0 +10.0 (BM25) +0.0 to +20.0" in text
    assert "After a reformulation latin 35 50.0 50.0 50.0" in text
    assert "vocabulary, %" not in text
    assert "script of the query" not in render()


def test_time_memory_and_what_each_reader_of_theta_read_are_said():
    """A stage of an older version has no memory; without a cascade the second reader reads all."""
    html = re.sub(r"<[^>]+>", " ", render())
    assert re.search(r"train crops\s+2\.0 s\s+1\.2 GB", html)
    assert re.search(r"score\s+1\.0 s\s+all stages together\s+3\.0 s\s+at most 1\.2 GB", html)
    assert re.search(r"score\s+5,372\s+48,000\s+2,300\s+97\.3", html)
    assert "The cross-encoder reads every pair" in html
    own = parts()
    own["discriminate"]["cascade"] = {"below": 0.7257, "above": 0.0594, "otherwise": 0.0214}
    told = page.render(report(), own, title="A", examples=1, simulated=True)
    assert "drops 72.6 % and keeps 5.9 %, and of those both readers would decide 2.1 % otherwise" in told
