import pytest

from crops.config.validate import ValidateConfig
from crops.engines import session
from crops.validation import rules, source, split, suite
from crops.validation.engine import DuckDBEngine
from tests.crops.validation import small_log

ORDER = ("videos", "searches", "results", "feed")


@pytest.fixture(scope="session")
def project():
    return suite.context()


@pytest.fixture
def judged(tmp_path, project):
    """Judges a log and yields per table (checks, split, tallies of Great Expectations over all rows)."""

    def run(log, cfg=None, *, batch_rows=1_000, folder=None):
        cfg = cfg or ValidateConfig(rows_per_day_looked_at=None)
        logs = small_log.write(folder or tmp_path / "logs", log)
        with session.opened("duckdb", scratch=logs / ".scratch") as house:
            engine = DuckDBEngine(house.backend.con)
            for name in ORDER:
                table = small_log.TABLES[name]
                checks = rules.checks(small_log.TABLES[name], cfg)
                split.judge(engine, source.of(logs, table)[0], logs / name, checks, cfg)
                found = split.added(split.count(engine, table, checks).values(), table, checks)
                split.remember(engine, table)
                rows = split.batches(
                    engine, table, checks, per_day=cfg.rows_per_day_looked_at, rows=batch_rows
                )
                yield name, checks, found, suite.watch(project, name, rows, checks)

    return run
