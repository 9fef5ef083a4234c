"""The training pipeline on this machine: KFP's local runner with a cache, so a killed run goes on where it
was.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops import progress
from crops.config.all import PIPELINE, Config
from crops.errors import CropsError, InputError
from crops.services import world_llm
from crops.stages import plug
from crops.tables import artifacts, fingerprint, folders
from pipelines import warm
from pipelines.screen import Screen, Voice

DATA_DOCS, BEIR = "data_docs", "beir"
REPORTS = ("report.html", "report.json")
# What a task that is asked to end may take before it is killed.
GRACE_S = 5.0
# Between two lines of a task about its progress, of which the screen shows the last.
PROGRESS_EVERY_S = 2.0
# Variables of the environment that say how many threads there are and how they wait.
THREADS = ("OMP_", "GOMP_", "KMP_", "MKL_")


def run(
    logs: Path,
    out: Path,
    config: Config,
    *,
    registry: str,
    llm: str | None = None,
    shards: int = 1,
    runner: str = "subprocess",
    voice: Voice = "normal",
) -> dict[str, Any]:
    """Runs the pipeline, copies report.json and report.html to `out`, and returns what report.json holds.

    runner: `subprocess`, or `docker`: every task in its own image at the Docker engine of DOCKER_HOST, as on
    a cluster. `shards`: how many tasks share the LLM's work and θ's; here one after the other, each
    restartable. `registry`: MLflow's URI. `voice`: how much is said meanwhile.

    Everything that a restart needs lies under out/.cache. A CropsError of a stage comes out of here as
    CropsError. Whatever ends it, a signal too, ends the tasks that it has started.
    """
    from pipelines.training import build

    logs, out = Path(os.path.abspath(logs)), Path(os.path.abspath(out))
    cache = out / ".cache"
    if not cache.exists() and (strange := [name for name in REPORTS if (out / name).exists()]):
        raise InputError(out, f"holds {strange[0]}, which no run has written there: name another folder")
    cache.mkdir(parents=True, exist_ok=True)
    # KFP gives every run folders of its own: what a killed task left there no later task would replace.
    folders.forget_unfinished(cache / "artifacts")
    with no_orphans(), world_llm.endpoint(logs, llm, cache) as url:
        arguments: dict[str, Any] = {f"{name}_config": config.section_json(name) for name in PIPELINE}
        # Stable names: what is passed to a component is part of its cache key.
        arguments |= {
            "logs": str(logs),
            "fingerprint": fingerprint.of(logs),
            "llm": url or "",
            "registry": registry,
            "checkpoints": str(cache / "checkpoints"),
            "shards": [f"{n}/{shards}" for n in range(shards)],
        }
        pipeline = build(last_fit=config.section("train").last_fit, resumes=True)
        _execute(pipeline, cache, arguments, _runner(runner, [logs, out]), voice=voice)
    return _collect(cache, out)


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
    """Ends every process that was started inside of the block when a signal or an error leaves it.

    Ctrl-C leaves it as a KeyboardInterrupt, SIGTERM and SIGHUP as a SystemExit with their code. The processes
    end first: whoever waits for one of them would otherwise not be left.
    """
    before_us = _descendants()

    def leave(number: int, _frame: Any) -> None:
        _end(_descendants() - before_us)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main else ()
    handlers = {number: signal.signal(number, leave) for number in caught}
    try:
        yield
    except BaseException:
        _end(_descendants() - before_us)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _descendants() -> set[int]:
    """Process ids of our children and of theirs, from /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(stat.parent.name)] = int(parent)
    descendants, new = set[int](), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - descendants
        descendants |= new
    return descendants


def _end(pids: set[int]) -> None:
    """Asks them to end, and kills those that have not after GRACE_S."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until_s = time.monotonic() + GRACE_S
        while pids and time.monotonic() < until_s:
            pids &= _descendants()
            time.sleep(0.05)


def _runner(name: str, folders: list[Path]) -> Any:
    """KFP's runner; in containers `folders` have the same paths as here, what is written there belongs to who
    runs this, and threads wait as they do here.
    """
    from kfp import local

    if name == "subprocess":
        return local.SubprocessRunner(use_venv=False)
    from docker.types import Mount

    outermost = [
        folder
        for folder in folders
        if not any(folder.is_relative_to(other) for other in folders if other != folder)
    ]
    return local.DockerRunner(
        entrypoint="",
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode="host",
        environment={name: value for name, value in os.environ.items() if name.startswith(THREADS)},
        mounts=[Mount(str(folder), str(folder), type="bind") for folder in outermost],
    )


def _execute(pipeline: Any, cache: Path, arguments: dict[str, Any], runner: Any, *, voice: Voice) -> None:
    from kfp import local

    local.init(
        runner=runner,
        pipeline_root=str(cache / "artifacts"),
        raise_on_error=True,
        enable_caching=True,
        cache_root=str(cache / "tasks"),
    )
    record = cache / "seconds.json"
    usual = artifacts.read_json(record) if record.exists() else {}
    total = _stages(pipeline, shards=len(arguments["shards"]))
    here = isinstance(runner, local.SubprocessRunner)
    with (cache / "run.log").open("a", encoding="utf-8") as log, _environment(forked=here):
        screen = Screen(log, sys.stdout, total=total, usual=usual, voice=voice)
        try:
            with (
                screen.alive(),
                _cache_hits(screen),
                contextlib.redirect_stdout(screen),
                contextlib.redirect_stderr(screen),
            ):
                pipeline(**arguments)
        except RuntimeError as error:
            if screen.error:
                raise CropsError(f"{screen.reported}: {screen.error}") from error
            raise RuntimeError(f"{error} The log is {cache / 'run.log'}") from error
        finally:
            artifacts.write_json(record, usual | screen.seconds)


@contextlib.contextmanager
def _cache_hits(screen: Screen) -> Iterator[None]:
    """Tells the screen of tasks that KFP does not run: it says so only in a log record."""

    class Hits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if hit := re.match(r"Task (\S+) cache hit", record.getMessage()):
                screen.cached(hit[1].strip("'"))

    root, hits = logging.getLogger(), Hits(logging.INFO)
    level = root.level
    root.addHandler(hits)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(hits)
        root.setLevel(level)


def _stages(pipeline: Any, *, shards: int) -> int:
    """How many stages report their end."""
    from google.protobuf import json_format

    spec = json_format.MessageToDict(pipeline.pipeline_spec)

    def count(dag: dict[str, Any]) -> int:
        number = 0
        for task in dag["tasks"].values():
            component = spec["components"][task["componentRef"]["name"]]
            items = task.get("parameterIterator", {}).get("items", {})
            times = len(json.loads(items["raw"])) if "raw" in items else shards if items else 1
            if "dag" in component:
                number += times * count(component["dag"])
            elif component["executorLabel"] not in ("exec-importer", "exec-finish"):
                number += times
        return number

    return count(spec["root"]["dag"])


@contextlib.contextmanager
def _environment(*, forked: bool = False) -> Iterator[None]:
    """Tasks are `python3 -c ...` in a shell: this interpreter and this checkout come first there, `forked` a
    process that has loaded what they need, and what they say of their progress is shown.
    """
    root = str(Path(__file__).resolve().parent.parent)
    told = {
        "PATH": _before("PATH", Path(sys.executable).parent),
        "PYTHONPATH": _before("PYTHONPATH", root),
        progress.LINES_EVERY_S: str(PROGRESS_EVERY_S),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(_set(told))
        if forked:
            # KFP starts a task by the interpreter that this name says.
            stack.callback(setattr, sys, "executable", sys.executable)
            sys.executable = stack.enter_context(warm.started())
        yield


def _before(name: str, folder: Path | str) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))


@contextlib.contextmanager
def _set(told: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment."""
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _collect(cache: Path, out: Path) -> dict[str, Any]:
    written = _newest(cache, "report/out/report.json")
    if written is None:
        raise RuntimeError(f"the pipeline ended without a report; the log is {cache / 'run.log'}")
    for name in REPORTS:
        partial = out / f".{name}.new"
        shutil.copyfile(written.with_name(name), partial)
        partial.replace(out / name)
    docs = written.with_name(DATA_DOCS)
    if docs.is_dir():  # the report links to it
        shutil.copytree(docs, out / DATA_DOCS, dirs_exist_ok=True)
    measured = _newest(cache, "evaluate/out/metrics.json")
    if measured and (sets := measured.with_name(BEIR)).is_dir():  # evaluate.write_beir asked for it
        shutil.copytree(sets, out / BEIR, dirs_exist_ok=True)
    report: dict[str, Any] = artifacts.read_json(out / "report.json")
    return report


def _newest(cache: Path, name: str) -> Path | None:
    """The file of the last run that wrote it; None where none has."""
    files = (cache / "artifacts").glob(f"*/{name}")
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=None)


def learnt(out: Path) -> tuple[dict[str, Path], Path, Path]:
    """Of the last run into `out`: what was trained, by system, its documents, and its samples."""
    cache = out / ".cache"
    written = sorted(
        (cache / "artifacts").glob("*/train*/out/train.json"), key=lambda p: p.stat().st_mtime_ns
    )
    inputs = [_newest(cache, name) for name in ("augment/out/documents", "label/out/samples")]
    documents, samples = (None if path is None else path.parent for path in inputs)
    if not written or documents is None or samples is None:
        raise InputError(out, "no finished `crops run` lies here")
    return plug.systems(path.parent for path in written), documents, samples
