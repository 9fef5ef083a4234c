"""The training pipeline on this machine: KFP's local runner with a cache, so a killed run goes on where it
was.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from crops.config.all import PIPELINE, Config
from crops.errors import CropsError
from crops.report import headline
from crops.services import world_llm
from crops.stages.plug import MARK
from crops.tables import artifacts, fingerprint

NUMBERS_SHOWN = 4


def run(
    logs: Path,
    out: Path,
    config: Config,
    *,
    llm: str | None = None,
    registry: str | None = None,
    shards: int = 1,
    runner: str = "subprocess",
    verbose: bool = False,
) -> str:
    """Runs the pipeline, copies report.json and report.html to `out` and prints the headline; returns
    promote, reject or unknown.

    runner: `subprocess`, or `docker`: every task in its own image at the Docker engine of DOCKER_HOST, as on
    a cluster. `shards`: how many tasks share the LLM's work and θ's; here one after the other, each
    restartable.

    Everything that a restart needs lies under out/.cache. A CropsError of a stage comes out of here as
    CropsError.
    """
    logs, out = Path(os.path.abspath(logs)), Path(os.path.abspath(out))
    cache = out / ".cache"
    cache.mkdir(parents=True, exist_ok=True)
    # Stable names: what is passed to a component is part of its cache key.
    registry = registry or f"sqlite:///{out / 'registry' / 'mlflow.db'}"
    (out / "registry").mkdir(exist_ok=True)
    with world_llm.endpoint(logs, llm, cache) as url:
        arguments: dict[str, Any] = {f"{name}_config": config.section_json(name) for name in PIPELINE}
        arguments |= {
            "logs": str(logs),
            "fingerprint": fingerprint.of(logs),
            "llm": url or "",
            "registry": registry,
            "checkpoints": str(cache / "checkpoints"),
            "shards": [f"{n}/{shards}" for n in range(shards)],
        }
        _execute(cache, arguments, _runner(runner, [logs, out]), verbose=verbose)
    return _collect(cache, out)


class _Screen:
    """A text stream that keeps a log and shows one line per finished task."""

    def __init__(self, log: TextIO, screen: TextIO, *, verbose: bool) -> None:
        self.log, self.screen, self.verbose = log, screen, verbose
        self.console = Console(file=screen, highlight=False)
        self.buffer, self.error, self.reported = "", "", ""

    def write(self, text: str) -> int:
        self.log.write(text)
        self.log.flush()
        if self.verbose:
            self.screen.write(text)
        self.buffer += text
        *lines, self.buffer = self.buffer.split("\n")
        for line in lines:
            if MARK in line:
                self._task(json.loads(line.split(MARK, 1)[1]))
        return len(text)

    def flush(self) -> None:
        self.log.flush()

    def isatty(self) -> bool:
        return False

    def _task(self, entry: dict[str, Any]) -> None:
        if "error" in entry:
            self.error, self.reported = entry["error"].split(": ", 1)[1], entry["stage"]
            return
        shown = list(entry["numbers"].items())[:NUMBERS_SHOWN]
        numbers = "  ".join(f"{k} {v:,.4g}" if isinstance(v, float) else f"{k} {v:,}" for k, v in shown)
        self.console.print(
            f"[bold]{entry['stage']:<26}[/bold] {entry['seconds']:7.1f} s  {numbers}", soft_wrap=True
        )


def _runner(name: str, folders: list[Path]) -> Any:
    """KFP's runner; in containers `folders` have the same paths as here, and what is written there belongs to
    who runs this.
    """
    from kfp import local

    if name == "subprocess":
        return local.SubprocessRunner(use_venv=False)
    from docker.types import Mount

    kept = [
        folder
        for folder in folders
        if not any(folder.is_relative_to(other) for other in folders if other != folder)
    ]
    return local.DockerRunner(
        entrypoint="",
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode="host",
        mounts=[Mount(str(folder), str(folder), type="bind") for folder in kept],
    )


def _execute(cache: Path, arguments: dict[str, Any], runner: Any, *, verbose: bool) -> None:
    from kfp import local

    from pipelines.training import build

    local.init(
        runner=runner,
        pipeline_root=str(cache / "artifacts"),
        raise_on_error=True,
        enable_caching=True,
        cache_root=str(cache / "tasks"),
    )
    with (cache / "run.log").open("a", encoding="utf-8") as log, _interpreter_first():
        screen = _Screen(log, sys.stdout, verbose=verbose)
        try:
            with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
                build(resumes=True)(**arguments)
        except RuntimeError as error:
            if screen.error:
                raise CropsError(f"{screen.reported}: {screen.error}") from error
            raise RuntimeError(f"{error} The log is {cache / 'run.log'}") from error


@contextlib.contextmanager
def _interpreter_first() -> Iterator[None]:
    """Tasks are `python3 -c ...` in a shell: this interpreter and this checkout come first there."""
    before = {name: os.environ.get(name) for name in ("PATH", "PYTHONPATH")}
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PATH"] = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), before["PATH"]]))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, before["PYTHONPATH"]]))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _collect(cache: Path, out: Path) -> str:
    found = sorted((cache / "artifacts").glob("*/report/out/report.json"), key=lambda p: p.stat().st_mtime_ns)
    if not found:
        raise RuntimeError(f"the pipeline ended without a report; the log is {cache / 'run.log'}")
    for name in ("report.html", "report.json"):
        partial = out / f".{name}.new"
        shutil.copyfile(found[-1].with_name(name), partial)
        partial.replace(out / name)
    report = artifacts.read_json(out / "report.json")
    if report["headline"]:
        print(headline.sentence(report["headline"]))
    return str(report["gate"]["verdict"])
