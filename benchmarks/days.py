"""What a day more costs: a log of so many days and one more, checked without and with a store.

    python benchmarks/days.py [--days 14] [--searches-per-day 10000] [--write]

All in one process, one after another, on a synthetic log (benchmarks/synthetic_log.py), after a small log has
loaded what is loaded once. Seconds are of the processor, all threads: a busy machine makes them no longer.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

import report
import synthetic_log

from crops.config.validate import ValidateConfig
from crops.stages.logs import validate


def seconds(stage: Callable[[], object]) -> float:
    started_s = time.process_time()
    stage()
    return time.process_time() - started_s


def checked(logs: Path, out: Path, store: Path | None) -> float:
    """Seconds of validate of one log."""
    settings = ValidateConfig(store=None if store is None else str(store))
    return seconds(lambda: validate.run(logs, out, settings))


def measured(folder: Path, *, days: int, per_day: int) -> dict[str, float]:
    """Seconds by what is measured."""
    more, fewer = folder / "more", folder / "fewer"
    synthetic_log.generate(more, searches=(days + 1) * per_day, days=days + 1)
    shutil.copytree(more, fewer)
    for table in ("searches", "results", "feed"):
        shutil.rmtree(sorted((fewer / table).iterdir())[-1])
    synthetic_log.generate(folder / "small", searches=200, days=2)
    checked(folder / "small", folder / "warm", None)
    store = folder / "store"
    return {
        f"{days} days into an empty store": checked(fewer, folder / "filling", store),
        f"{days + 1} days without a store": checked(more, folder / "plain", None),
        f"{days + 1} days, {days} of them in the store": checked(more, folder / "stored", store),
    }


if __name__ == "__main__":
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--searches-per-day", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        told = measured(Path(scratch), days=arguments.days, per_day=arguments.searches_per_day)
    plain = told[f"{arguments.days + 1} days without a store"]
    rows = [[name, f"{took:.1f} ({took / plain:.2f})"] for name, took in told.items()]
    text = "\n".join(
        [
            "# A day more\n",
            report.machine(["duckdb", "great_expectations"]) + "\n",
            f"{arguments.searches_per_day:,} searches a day, ten times as many results and feed views. "
            "Seconds of the processor, and against the whole log without a store.\n",
            report.table(["log", "validate"], rows),
        ]
    )
    report.out("days", text, write=arguments.write)
