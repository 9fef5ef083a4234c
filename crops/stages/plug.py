"""What KFP components share: absent folders become None; a stage is timed and its numbers are kept beside its
tables.
"""

import contextlib
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from crops import cores, memory
from crops.errors import CropsError
from crops.stages.base import StageReport
from crops.tables import artifacts, folders

# A line of a task's output that starts so is for the progress display; the rest is the log.
MARK = "CROPS-TASK "
STAGE_FILE = folders.TASK
# What is relevant, by a world or by people, and whether it is a simulated world.
BESIDE = ("truth", "judgements", "world.json")
# What a stage's result may hang on: module to package.
USED = {
    "crops": "crops",
    "duckdb": "duckdb",
    "pyspark": "pyspark",
    "great_expectations": "great-expectations",
    "torch": "torch",
    "transformers": "transformers",
    "onnxruntime": "onnxruntime",
    "faiss": "faiss-cpu",
    "bm25s": "bm25s",
    "mlflow": "mlflow",
}


def optional(path: str | Path) -> Path | None:
    """The folder at `path`, or None where it is not there or holds no visible file but stage.json."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")} - {STAGE_FILE}
    return folder if names else None


def beside(logs: str | Path, out: str | Path) -> None:
    """Copies what a log holds beside its tables and later tasks read: on a cluster every task gets its inputs
    whole, and the tables are large.
    """
    Path(out).mkdir(parents=True, exist_ok=True)
    for path in (Path(logs) / name for name in BESIDE):
        if path.is_dir():
            shutil.copytree(path, Path(out) / path.name, dirs_exist_ok=True)
        elif path.exists():
            shutil.copy2(path, out)


def graded(source: str | Path) -> Path | None:
    """Where the log says what is relevant: its complete truth, else what people judged of a sample, else
    None.
    """
    return optional(Path(source) / "truth") or optional(Path(source) / "judgements")


def systems(folders: Iterable[str | Path]) -> dict[str, Path]:
    """What training wrote, by the system that each folder says it holds."""
    return {artifacts.read_json(Path(f) / "train.json")["system"]: Path(f) for f in folders}


def below(root: str, name: str) -> Path | None:
    """`root`/`name`, or None where no root is given."""
    return Path(root) / name if root else None


def timed(
    name: str, out: str, metrics: Any, stage: Callable[[Path], StageReport], config: str = "{}"
) -> None:
    """Runs `stage(out)`, writes stage.json (seconds, peak memory, numbers, notes, its settings, versions of
    what it used) into `out`, logs the numbers; prints a line when it begins and one when it has ended.
    """
    cores.hold()  # a task on a cluster starts here, not at `crops`
    started_s = time.monotonic()
    _say({"stage": name, "begins": True})
    try:
        report = stage(Path(out))
    except CropsError as error:
        _say({"stage": name, "error": f"{type(error).__name__}: {error}"})
        raise
    seconds = time.monotonic() - started_s
    entry = {
        "stage": name,
        "seconds": seconds,
        "memory_gb": round(memory.peak() / memory.GB, 2),
        "numbers": report.numbers,
        "notes": list(report.notes),
    }
    kept = entry | {"config": json.loads(config), "versions": versions()}
    artifacts.write_json(Path(out) / STAGE_FILE, kept)
    for key, value in report.numbers.items():
        metrics.log_metric(key, float(value))
    # KFP leaves no file for Metrics, and the local cache takes an output whose file is missing for a miss.
    artifacts.write_json(Path(metrics.path), report.numbers)
    _say(entry)


def versions() -> dict[str, str]:
    """The version of Python, of this project, and of every package of USED that this process has imported."""
    used = {"python": platform.python_version()}
    for module, package in USED.items():
        with contextlib.suppress(metadata.PackageNotFoundError):  # another build of it: faiss-gpu
            used |= {package: metadata.version(package)} if module in sys.modules else {}
    return used


def _say(entry: dict) -> None:
    print(
        MARK + json.dumps(entry), flush=True
    )  # one line: the local runner reads the task's output line by line
