"""With a store, a day of the log is checked once; what is written is the same as without one."""

import datetime as dt
import random
import types
import zlib

import pyarrow.parquet as pq
import pytest

from crops.config.validate import ValidateConfig
from crops.stages.logs import validate
from crops.tables import artifacts, records
from crops.validation import docs, suite
from tests.crops.mining import engines
from tests.crops.validation import small_log

TABLES = 3  # that lie under folders of days


class Runs:
    """Validates logs one after another, with one store for all."""

    def __init__(self, folder, engine):
        self.folder, self.engine, self.number = folder, engine, 0
        self.store = folder / "store"

    def log(self, rows):
        self.number += 1
        return small_log.write(self.folder / f"logs-{self.number}", rows)

    def run(self, logs, **settings):
        self.number += 1
        out = self.folder / f"out-{self.number}"
        return out, validate.run(logs, out, ValidateConfig(**settings), engine=self.engine)

    def stored(self, rows):
        """How many days came from the store, when all that was written was compared to a run without it."""
        logs = self.log(rows)
        out, report = self.run(logs, store=str(self.store))
        assert told(out) == told(self.run(logs)[0])
        return report.numbers["days_from_store"]


def told(out):
    """validation.json, and the rows of every Parquet file (by repr, NaN equals itself)."""
    files = {
        str(path.relative_to(out)): repr(pq.read_table(path, partitioning=None).to_pylist())
        for path in sorted(out.rglob("*.parquet"))
    }
    return {**files, "": artifacts.read_json(out / "validation.json")}


@pytest.fixture
def unasked(monkeypatch):
    """Great Expectations, which takes seconds for each day of a small log, is not asked: which rows it would
    look at is in its place.
    """

    def watch(_project, _name, batches, checks):
        rows = [zlib.crc32(repr(row).encode()) for batch in batches for row in batch.to_pylist()]
        return [suite.Tally(looked_at=len(rows), unexpected=sum(rows)) for _ in checks]

    def outcomes(checks, tallies, *_more):
        for check, tally in zip(checks, tallies, strict=True):
            yield types.SimpleNamespace(success=True, as_json=lambda c=check, t=tally: [c.reason, repr(t)])

    monkeypatch.setattr(suite, "context", lambda: None)
    monkeypatch.setattr(suite, "watch", watch)
    monkeypatch.setattr(suite, "row_outcomes", outcomes)
    for name in ("day_outcomes", "file_outcomes"):
        monkeypatch.setattr(suite, name, lambda *_: [])
    monkeypatch.setattr(docs, "build", lambda *_args, **_more: None)


@pytest.fixture(params=engines.ENGINES)
def runs(request, tmp_path, unasked):
    if request.param == "spark":
        engines.need_spark()
    return Runs(tmp_path, request.param)


@pytest.fixture
def embedded(tmp_path, unasked):
    return Runs(tmp_path, "duckdb")


def test_great_expectations_says_the_same(tmp_path):
    """One of every fault, and examples in the order of the files; some days share a key."""
    runs, log = Runs(tmp_path, "duckdb"), small_log.faulty()
    assert runs.stored(log) == 0
    assert runs.stored(log) > TABLES


def test_a_day_more_is_a_days_work(runs):
    """All days of three tables are taken but those of the third day."""
    assert runs.stored(small_log.rows(days=2)) == 0
    assert runs.stored(small_log.rows(days=3)) == 2 * TABLES


@pytest.mark.parametrize("seed", range(3))
def test_a_store_changes_nothing(embedded, seed):
    """Logs with random faults, twice each: keys that stand in two days, results of no search, late rows."""
    rng = random.Random(seed)
    log = small_log.faulty()
    for name in ("searches", "results", "feed"):
        rng.shuffle(log[name])
        for row in rng.sample(log[name], 6):
            log[name].append({**row, "date": small_log.day(rng.randrange(4))})
        log[name] = [row for row in log[name] if rng.random() < 0.97]
    embedded.stored(log)
    embedded.stored(log)


def test_a_changed_row_makes_its_own_day_anew(embedded):
    log = small_log.rows(days=3)
    embedded.stored(log)
    log["feed"][40]["play_s"] = -1.0  # of the second day
    assert embedded.stored(log) == 3 * TABLES - 1


def test_what_befalls_a_search_befalls_the_results_of_its_day(embedded):
    log = small_log.rows(days=3)
    embedded.stored(log)
    log["searches"][40]["query"] = ""
    assert embedded.stored(log) == 3 * TABLES - 2


def test_another_catalogue_makes_anew_the_days_that_name_what_changed(embedded):
    log = small_log.rows(days=3)
    log["feed"] = [row for row in log["feed"] if row["video_id"] != "v003" or row["date"] == small_log.day(0)]
    log["results"] = [row for row in log["results"] if row["video_id"] != "v003"]
    embedded.stored(log)
    log["videos"].append({**log["videos"][0], "video_id": "new"})
    assert embedded.stored(log) == 3 * TABLES
    log["videos"][3]["uploaded_at"] += dt.timedelta(days=1)
    assert embedded.stored(log) == 3 * TABLES - 1


def test_days_that_share_a_key_are_checked_together(embedded):
    """A row of the first day that comes once more in the third: neither is kept, nor taken from before."""
    log = small_log.rows(days=3)
    embedded.stored(log)
    log["feed"].append({**log["feed"][0], "date": small_log.day(2)})
    assert embedded.stored(log) == 3 * TABLES - 2
    assert embedded.stored(log) == 3 * TABLES - 2


def test_what_is_removed_or_damaged_is_made_anew(embedded):
    log = small_log.rows(days=3)
    embedded.stored(log)
    files = sorted((embedded.store / "validate").rglob("*.json"))
    assert len(files) == 3 * TABLES
    files[0].unlink()
    files[1].write_text(files[1].read_text()[:-20])
    assert embedded.stored(log) == 3 * TABLES - 2
    for piece in embedded.store.glob("*.parquet"):
        piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    assert embedded.stored(log) == 0
    assert embedded.stored(log) == 3 * TABLES


def test_other_settings_are_other_days(embedded):
    """A bound of a check is; what a whole table is judged by is not."""
    logs = embedded.log(small_log.rows(days=2))
    store = str(embedded.store)
    embedded.run(logs, store=store)
    for settings, kept in (({"max_bad_share": 0.5}, 2 * TABLES), ({"max_query_chars": 50}, TABLES + 1)):
        report = embedded.run(logs, store=store, **settings)[1]
        assert report.numbers["days_from_store"] == kept, settings


def test_a_log_without_folders_of_days_is_checked_whole(embedded):
    logs = embedded.log(small_log.rows(days=2))
    for table in records.LOGS:
        for number, path in enumerate(sorted((logs / table.name).rglob("*.parquet"))):
            path.rename(logs / table.name / f"{number}.parquet")
    for _ in range(2):
        _, report = embedded.run(logs, store=str(embedded.store))
        assert report.numbers["days_from_store"] == 0
