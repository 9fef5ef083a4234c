"""Tiny worlds, written once per test run and only read afterwards."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from crops.tables import artifacts, records
from crops.world import simulate


@dataclass(frozen=True)
class Log:
    """A written world: its folder, and its tables by name."""

    folder: Path
    numbers: dict[str, float | int]

    def table(self, table: records.Table) -> pa.Table:
        return artifacts.read(self.folder / "truth" if table is records.RELEVANCE else self.folder, table)

    def frame(self, table: records.Table):
        return self.table(table).to_pandas()


def _write(folder: Path, **options) -> Log:
    return Log(folder, simulate.write(folder, seed=7, **{"scale": "tiny", **options}))


@pytest.fixture(scope="session")
def paths_log(tmp_path_factory) -> Log:
    return _write(tmp_path_factory.mktemp("world") / "paths", incumbent="paths")


@pytest.fixture(scope="session")
def lexical_log(tmp_path_factory) -> Log:
    return _write(tmp_path_factory.mktemp("world") / "lexical", incumbent="lexical")


@pytest.fixture(scope="session")
def small_log(tmp_path_factory) -> Log:
    return _write(tmp_path_factory.mktemp("world") / "small", scale="small")


@pytest.fixture(scope="session")
def tiny_world() -> simulate.World:
    return simulate.make("tiny", seed=7)
