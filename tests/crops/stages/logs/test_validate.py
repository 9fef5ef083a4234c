"""The stage as a whole: what it writes, what the days say, and that its memory does not grow with the log."""

import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops.config.validate import ValidateConfig
from crops.stages.logs import validate
from crops.tables import artifacts, records
from tests.crops.mining import engines
from tests.crops.validation import small_log


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    report = validate.run(
        small_log.write(folder / "logs", small_log.faulty()), folder / "out", ValidateConfig()
    )
    return folder, report


@pytest.mark.spark
def test_both_engines_write_the_same_tables_and_say_the_same(tmp_path):
    """Row for row in the files' order; only the sample that Great Expectations looks at itself is each
    engine's own.
    """
    engines.need_spark()
    # A name that an engine which thinks in URLs must not change.
    logs = small_log.write(tmp_path / "the logs + more", small_log.faulty())
    reports = {
        name: validate.run(logs, tmp_path / name, ValidateConfig(), engine=name)
        for name in ("duckdb", "spark")
    }
    assert reports["duckdb"].numbers == reports["spark"].numbers
    for table in records.LOGS:
        one, other = (artifacts.read(tmp_path / name, table) for name in reports)
        assert one.equals(other), table.name
        bad = [
            pq.read_table(tmp_path / name / "quarantine" / table.name, partitioning=None) for name in reports
        ]
        assert repr(bad[0].to_pylist()) == repr(bad[1].to_pylist()), table.name  # by repr, NaN equals itself
    told = [artifacts.read_json(tmp_path / name / "validation.json")["tables"] for name in reports]
    for name in told[0]:
        for part in ("read", "accepted", "quarantined", "reasons", "days", "shape"):
            assert told[0][name][part] == told[1][name][part], (name, part)


def test_accepted_and_quarantined_are_what_was_read(faulty):
    folder, report = faulty
    for table in records.LOGS:
        read = artifacts.read(folder / "logs", table).num_rows
        accepted = artifacts.read(folder / "out", table)
        bad = pq.read_table(folder / "out" / "quarantine" / table.name, partitioning=None)
        assert accepted.num_rows + bad.num_rows == read
        assert report.numbers[f"{table.name}_accepted"] == accepted.num_rows
        assert bad.column_names == [*table.schema.names, "reason", "file", "row_number"]
        assert set(bad["reason"].to_pylist()) == {
            reason for name, reason in small_log.FAULTS if name == table.name
        }


def test_a_quarantined_row_says_where_it_stood(faulty):
    folder, _ = faulty
    for row in pq.read_table(folder / "out" / "quarantine" / "feed", partitioning=None).to_pylist():
        source = (
            pq.read_table(folder / "logs" / row["file"], partitioning=None)
            .slice(row["row_number"], 1)
            .to_pylist()[0]
        )
        assert source == {name: row[name] for name in records.FEED.schema.names}


def test_accepted_results_lie_under_the_day_of_their_search(faulty):
    folder, _ = faulty
    found = {}
    for name in ("searches", "results"):
        for path in (folder / "out" / name).rglob("*.parquet"):
            for search in pq.read_table(path, partitioning=None)["search_id"].to_pylist():
                found.setdefault(search, set()).add(path.parent.name)
    assert all(len(days) == 1 for days in found.values())


def test_the_docs_need_no_network_show_every_expectation_and_run_nothing_from_the_log(faulty):
    folder, report = faulty
    docs = folder / "out" / "data_docs"
    pages = {p.name: p.read_text(encoding="utf-8") for p in docs.iterdir()}
    assert pages.keys() == {"index.html", *(f"{t.name}.html" for t in records.LOGS)}
    for name, page in pages.items():
        links = re.findall(r'(?:src|href)\s*=\s*"?([^" >]*)', page)
        assert links
        assert all(link in pages or link == "data:," or link.startswith("#") for link in links), name
        assert not {"<script", "http:", "https:", "@import", "url("} & set(
            re.findall(r"<script|https?:|@import|url\(", page)
        )
        assert "Exception" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages["searches.html"]
    icons = re.compile("fas fa-(?:check-circle|times|exclamation-triangle)")
    shown = sum(len(icons.findall(page)) for page in pages.values())
    told = artifacts.read_json(folder / "out" / "validation.json")["tables"]
    asked = [
        (name, *(e[key] for key in ("part", "column", "reason")))
        for name in told
        for e in told[name]["expectations"]
    ]
    assert len(asked) == report.numbers["expectations"]
    assert shown == len(set(asked)), "each fact once, though its warning and its critical share are two"


def test_distributions_are_those_of_the_accepted_rows(faulty):
    """Counted once more with pandas."""
    folder, _ = faulty
    told = artifacts.read_json(folder / "out" / "validation.json")["tables"]
    searches, results, feed = (
        artifacts.read(folder / "out", table).to_pandas()
        for table in (records.SEARCHES, records.RESULTS, records.FEED)
    )
    shape = told["searches"]["shape"]
    assert (shape["users"], shape["queries"]) == (searches.user_id.nunique(), searches["query"].nunique())
    assert sum(shape["query_length"].values()) == len(searches)
    assert shape["query_length"]["6–10"] == searches["query"].str.len().between(6, 10).sum()
    whole = searches.sort_values(["user_id", "ts", "search_id"])
    gaps = whole.ts.dt.floor("s").groupby(whole.user_id).diff().dt.total_seconds().dropna()
    assert shape["gaps"]["≤ 90 s"] == ((gaps > 60) & (gaps <= 90)).sum()
    assert sum(shape["gaps"].values()) == len(gaps)
    exposed = results[results.stage == "exposed"]
    first = next(row for row in told["results"]["shape"]["positions"] if row["position"] == 0)
    at_0 = exposed[exposed.position == 0]
    assert (first["shown"], first["clicks"]) == (len(at_0), at_0.clicked.sum())
    assert sum(told["feed"]["shape"]["plays"].values()) == feed.play_s.notna().sum()
    page = (folder / "out/data_docs/results.html").read_text()
    assert "Clicks by position" in page


def test_the_days_are_compared_with_the_day_before(tmp_path):
    """Four days of 30 searches; of the second 3 remain, the third is missing, on the fourth everything
    exposed is clicked.
    """
    log = small_log.rows(days=4)
    gone = {f"s{n:05}" for n in range(33, 90)}
    for name in ("searches", "results"):
        log[name] = [row for row in log[name] if row["search_id"] not in gone]
    for row in log["results"]:
        row["clicked"] |= row["stage"] == "exposed" and row["date"] == small_log.day(3)
        row["position"] = 7 if row["position"] == 1 and row["date"] == small_log.day(1) else row["position"]
    validate.run(small_log.write(tmp_path / "logs", log), tmp_path / "out", ValidateConfig())
    found = artifacts.read_json(tmp_path / "out" / "validation.json")
    assert found["success"] is True
    assert found["warnings"] == [
        "searches: days are missing: 2026-01-08: 2, expected <= 1",
        "searches: volume differs from the day before: 2026-01-06: 0.1, expected >= 0.2 and <= 5",
        "results: days are missing: 2026-01-08: 2, expected <= 1",
        "results: volume differs from the day before: 2026-01-06: 0.1, expected >= 0.2 and <= 5",
        "results: click rate is out of its bounds: 2026-01-08: 1, expected >= 0.001 and <= 0.8",
        "results: positions are not 0, 1, 2 ...: 2026-01-06: 1, expected <= 0.01",
    ]


def big_log(folder, searches):
    """`searches` on one day, twenty results each, as columns."""
    ids = pa.array([f"s{n:08}" for n in range(searches)])
    ts = pa.array(np.full(searches, np.datetime64("2026-01-05T12:00:00", "us"))).cast(records.TS)
    query = pa.array([f"a query of usual length {n % 999}" for n in range(searches)])
    small_log.write(folder, {"videos": small_log.rows(videos=40)["videos"]})
    rows, each = searches * 20, np.arange(searches * 20) % 20
    exposed = each < 8
    stages, videos = pa.array(["ranked", "exposed"]), pa.array([f"v{n:03}" for n in range(20)])
    no = pa.array(np.zeros(rows, bool))
    results = {
        "search_id": ids.take(pa.array(np.arange(rows) // 20)),
        "video_id": videos.take(pa.array(each)),
        "stage": stages.take(pa.array(exposed.astype(int))),
        "position": pa.array(each.astype("int32"), mask=~exposed),
        "clicked": no,
        "liked": no,
        "play_s": pa.nulls(rows, pa.float32()),
    }
    searches_ = pa.table({"search_id": ids, "user_id": ids, "ts": ts, "query": query})
    tables = {"searches": searches_, "results": pa.table(results)}
    for name, table in tables.items():
        (folder / name / "date=2026-01-05").mkdir(parents=True)
        pq.write_table(
            table, folder / name / "date=2026-01-05" / "part-0.parquet", row_group_size=artifacts.ROW_GROUP
        )
    return folder


PEAK = """
import resource, sys
from pathlib import Path
from crops.config.validate import ValidateConfig
from crops.stages.logs import validate
cfg = ValidateConfig(memory_gb=0.25, rows_per_day_looked_at=None)
report = validate.run(Path(sys.argv[1]), Path(sys.argv[2]), cfg)
print(report.numbers["results_accepted"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(tmp_path):
    """Four times the rows, every one of them seen by Great Expectations too: the peak grows by less than a
    third.
    """
    peaks = []
    for searches in (25_000, 100_000):
        logs = big_log(tmp_path / f"logs{searches}", searches)
        command = [sys.executable, "-c", PEAK, str(logs), str(tmp_path / f"out{searches}")]
        accepted, peak = map(
            int,
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=500).stdout.split(),
        )
        assert accepted == searches * 20
        peaks.append(peak)
    assert peaks[1] < 1.33 * peaks[0], peaks
