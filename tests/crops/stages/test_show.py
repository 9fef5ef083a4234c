"""What KFP's own pages show, of what the stages themselves wrote."""

import json
import re

from crops.config.validate import ValidateConfig
from crops.stages import show
from crops.stages.logs import validate
from tests.crops.validation import small_log


def test_the_recall_table_names_sets_and_systems_and_what_is_not_known(tmp_path):
    recall = {"ct": {"bm25": 0.5, "crops": 1.0}, "qr_raw": {"crops": 0.25}, "truth": None}
    (tmp_path / "metrics.json").write_text(json.dumps({"recall_at_100": recall, "counts": {"ct": 7}}))
    show.recall(str(tmp_path), str(tmp_path / "to"))
    lines = (tmp_path / "to").read_text().splitlines()
    assert lines[2:6] == [
        "| Test set | queries | BM25 | CroPS |",
        "|---|---:|---:|---:|",
        "| Clicks (`ct`) | 7 | 50.0 | 100.0 |",
        "| After a reformulation (`qr_raw`) | – | – | 25.0 |",
    ]


def test_the_verdict_stands_there_with_every_check(tmp_path):
    checks = [
        {"name": "better on qr_raw", "passed": True, "reason": "+0.1"},
        {"name": "no loss on ct", "passed": None, "reason": "few queries"},
    ]
    (tmp_path / "verdict.json").write_text(
        json.dumps({"verdict": "unknown", "reasons": [], "checks": checks})
    )
    show.verdict(str(tmp_path), str(tmp_path / "to"))
    text = (tmp_path / "to").read_text()
    assert text.startswith("# Unknown\n")
    assert "| yes | better on “After a reformulation” | +0.1 |" in text
    assert "| unknown | no loss on “Clicks” | few queries |" in text


def test_data_docs_are_one_file_whose_links_stay_in_it(tmp_path):
    validate.run(small_log.write(tmp_path / "logs", small_log.rows()), tmp_path / "out", ValidateConfig())
    show.docs(str(tmp_path / "out"), str(tmp_path / "to"))
    text = (tmp_path / "to").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]*)"', text)
    assert links
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    assert all(f'id="{link[1:]}"' in text for link in links if link.startswith("#"))
    assert "Clicks by position" in text
    assert text.count("<main>") == 1
