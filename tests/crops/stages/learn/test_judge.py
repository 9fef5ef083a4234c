"""Out and back: the sheet is blind, grades become a table that ladder and evaluation use, and a wrong sheet
is named.
"""

import csv
import json
from collections import Counter

import pyarrow as pa
import pytest

from crops.config.judge import JudgeConfig
from crops.config.label import LabelConfig
from crops.errors import InputError
from crops.stages.learn import judge, label
from crops.tables import artifacts, grades, records
from tests.crops.stages import toy_release as toy


@pytest.fixture
def asked(tmp_path):
    """Six topics: clicks of the own topic with θ 0.9, exposed videos of another one with θ 0.8 (θ is wrong
    about those).
    """
    one = {"later_query": None, "first_ts": 0, "support": 1, "kept": True}
    rows = [
        {**one, "query": f"subject{t}", "doc_id": toy.doc(topic, n), "perspective": name, "theta": theta}
        for t in range(toy.TOPICS)
        for n in range(3)
        for name, topic, theta in (("click", t, 0.9), ("exposed", (t + 1) % toy.TOPICS, 0.8))
    ]
    toy.write(tmp_path / "scored", SCORED=rows, KNOWLEDGE=[])
    toy.write(tmp_path / "mined", DOCUMENTS=toy.DOCUMENTS)
    report = judge.export(tmp_path / "scored", tmp_path / "mined", tmp_path / "ask", JudgeConfig())
    assert report.numbers == {"pairs_click": 3 * toy.TOPICS, "pairs_exposed": 3 * toy.TOPICS}
    return tmp_path


def filled(folder, path, grade):
    key = json.loads((folder / "ask" / "key.json").read_text())
    with (folder / "ask" / "sheet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["grade"] = grade(key[row["pair_id"]])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_what_raters_see_names_no_perspective_and_no_score(asked):
    for name in ("sheet.csv", "judge.html"):
        shown = (asked / "ask" / name).read_text()
        assert "subject1" in shown
        assert not any(word in shown for word in ("exposed", "theta", "0.8", "doc_id", "video_id"))


def test_grades_come_back_and_the_ladder_believes_them(asked):
    first = filled(asked, asked / "anna.csv", lambda pair: 3 if pair["perspective"] == "click" else 0)
    second = filled(asked, asked / "ben.csv", lambda pair: 2 if pair["perspective"] == "click" else "")
    report = judge.read(asked / "ask", [first, second], asked / "judged")
    assert report.numbers["relevant_share_click"] == 1.0
    assert report.numbers["relevant_share_exposed"] == 0.0
    found = grades.read(asked / "judged")
    assert not found.complete
    assert sorted(found.table["grade"].unique()) == [0, 2]
    trusting = label.run(
        asked / "scored", asked / "labelled", LabelConfig(judged_pairs=10), judged=asked / "judged"
    )
    told = artifacts.read_json(asked / "labelled" / "label.json")
    assert told["ladder"]["3"] == 0.0
    assert told["hierarchy"]["judged_labels"] == ["3", "4"]
    assert told["hierarchy"]["anchor_min_candidates"] == [4]
    label.run(asked / "scored", asked / "believing", LabelConfig())
    assert artifacts.read_json(asked / "believing" / "label.json")["hierarchy"]["anchor_min_candidates"] == [
        3
    ], "θ alone says so"
    assert trusting.numbers["samples"]


@pytest.fixture
def pooled(asked):
    """What evaluate wrote of subject0 (a held-out query): its own five documents, of which 0 is a sample, 1
    the same text as a sample, 2 of the validation; 3 and 4 are left, one that is a candidate, one too deep.
    """
    texts = [*toy.DOCUMENTS, {"doc_id": "twin", "text": dict(zip_texts())[toy.doc(0, 1)]}]
    toy.write(asked / "mined", DOCUMENTS=texts, VALID_QR=toy.pairs(("subject0", toy.doc(0, 2))))
    rows = [("subject0", toy.doc(0, n), n + 1) for n in range(5)] + [
        ("subject0", toy.doc(0, 7), 9),
        ("subject0", toy.doc(1, 0), 2),
    ]
    pool = [{"query": q, "video_id": d, "rank": rank} for q, d, rank in rows]
    toy.write(asked / "metrics", POOL=pool)
    seen = [{"query": "subject0", "doc_id": d, "perspective": "click"} for d in (toy.doc(0, 0), "twin")]
    toy.write(asked / "samples", SAMPLES=[{**row, "label": 4, "theta": None} for row in seen], ORIGINS=seen)
    parts = {"metrics": asked / "metrics", "samples": asked / "samples"}
    judge.export(asked / "scored", asked / "mined", asked / "ask", JudgeConfig(), **parts)
    return asked


def zip_texts():
    return [(row["doc_id"], row["text"]) for row in toy.DOCUMENTS]


def test_the_pool_holds_no_pair_that_anything_was_trained_on_or_chosen_by(pooled):
    key = json.loads((pooled / "ask" / "key.json").read_text()).values()
    pool = {(pair["query"], pair["doc_id"]) for pair in key if pair["perspective"] == "pool"}
    assert pool == {("subject0", doc_id) for doc_id in (toy.doc(0, 3), toy.doc(0, 4), toy.doc(1, 0))}
    pairs = [(pair["query"], pair["doc_id"]) for pair in key]
    assert len(pairs) == len(set(pairs)), "asked once"
    with pytest.raises(InputError, match="a pool needs the samples as well"):
        judge.export(
            pooled / "scored", pooled / "mined", pooled / "x", JudgeConfig(), metrics=pooled / "metrics"
        )


def test_the_two_samples_come_back_apart(pooled):
    """The ladder reads what was said of candidates; systems are measured by the pool alone."""
    sheet = filled(pooled, pooled / "anna.csv", lambda pair: 3 if pair["perspective"] == "pool" else 1)
    report = judge.read(pooled / "ask", [sheet], pooled / "judged")
    assert report.numbers["judged_pool"] == 3
    candidates, pool = grades.read(pooled / "judged"), grades.measuring(pooled / "judged")
    assert set(candidates.table["grade"]) == {1}
    assert sorted(pool.table["doc_id"]) == [toy.doc(0, 3), toy.doc(0, 4), toy.doc(1, 0)]
    assert not pool.complete
    assert grades.measuring(pooled / "judged" / "pool").table.equals(pool.table)


def test_a_sample_of_candidates_measures_nothing(asked):
    judge.read(asked / "ask", [filled(asked, asked / "anna.csv", lambda _: 3)], asked / "judged")
    assert grades.measuring(asked / "judged") is None


def test_a_sample_says_nothing_of_pairs_outside_it(asked):
    table = pa.table({"query": ["q"], "video_id": ["a"], "grade": pa.array([3], pa.int8())})
    import pandas as pd

    queries, docs = pd.Series(["q", "q", "r"]), pd.Series(["a", "b", "a"])
    for complete, expected in ((True, [1.0, 0.0, None]), (False, [1.0, None, None])):
        folder = asked / f"known-{complete}"
        artifacts.write(folder, records.RELEVANCE, table)
        if not complete:
            artifacts.write_json(folder / grades.SAMPLE, {})
        found = grades.read(folder).relevant(queries, docs)
        assert [None if x != x else x for x in found.tolist()] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pair_id,grade\np0001,7\n", "row 2: grade is '7'"),
        ("pair_id,grade\np0001,1\nnobody,2\n", "row 3: pair_id 'nobody'"),
        ("pair_id,note\np0001,1\n", "column 'grade' is missing"),
        ("pair_id,grade\np0001,1\np0001,2\n", "two grades, 1 and 2"),
        ("pair_id,grade\np0001,\n", "no grade at all"),
    ],
)
def test_a_wrong_sheet_is_named_with_its_row(asked, text, words):
    (asked / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        judge.read(asked / "ask", [asked / "bad.csv"], asked / "out")
    assert not (asked / "out").exists()


@pytest.mark.browser
def test_the_page_grades_by_keys_and_saves_a_sheet(asked, chromium):
    page = chromium.new_page()
    page.goto((asked / "ask" / "judge.html").as_uri())
    for key in ("3", "0", "ArrowLeft", "1", "?"):
        page.keyboard.press(key)
    assert page.inner_text("#place") == f"pair 4 of {6 * toy.TOPICS}, 3 judged"
    assert page.get_attribute("div[aria-live]", "aria-live") == "polite", "a new pair is read out"
    page.click("summary")
    assert "cannot tell" in page.inner_text("details")
    with page.expect_download() as saved:
        page.click("#save")
    saved.value.save_as(asked / "grades.csv")
    with (asked / "grades.csv").open(newline="") as file:
        assert [row["grade"] for row in csv.DictReader(file)][:4] == ["3", "1", "?", ""]
    read = judge.read(asked / "ask", [asked / "grades.csv"], asked / "judged")
    assert read.numbers["judged"] == 2, "who cannot tell has not judged"


def test_of_more_pairs_than_are_read_some_queries_come_with_all_of_theirs(tmp_path, monkeypatch):
    """Sixty queries of three pairs; about a third is read, and drawn from as if there were no others."""
    one = {"later_query": None, "first_ts": 0, "support": 1, "kept": True, "theta": 0.5}
    rows = [
        {**one, "query": f"subject{n}", "doc_id": toy.doc(n % toy.TOPICS, k), "perspective": "click"}
        for n in range(60)
        for k in range(3)
    ]
    toy.write(tmp_path / "scored", SCORED=rows, KNOWLEDGE=[])
    toy.write(tmp_path / "mined", DOCUMENTS=toy.DOCUMENTS)
    monkeypatch.setattr(judge, "MOST_PAIRS", len(rows) // 3)
    judge.export(tmp_path / "scored", tmp_path / "mined", tmp_path / "ask", JudgeConfig(pairs=1_000))
    counts = Counter(pair["query"] for pair in artifacts.read_json(tmp_path / "ask/key.json").values())
    assert 10 <= len(counts) <= 30
    assert set(counts.values()) == {3}
