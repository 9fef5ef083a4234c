"""The training pipeline on this machine: KFP's local runner with a cache, so a killed run goes on where it was."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from crops.config.all import SECTIONS, Config
from crops.errors import CropsError, ServiceError
from crops.io import artifacts
from crops.stages.plug import MARK

SOURCES = ("crops", "components", "pipelines")
NUMBERS_SHOWN = 4


def run(
    logs: Path, out: Path, config: Config, *, llm: str | None = None, registry: str | None = None, verbose: bool = False
) -> str:
    """Runs the pipeline and copies report.json and report.html to `out`; returns promote, reject or unknown.

    Everything that a restart needs lies under out/.cache. A CropsError of a stage comes out of here as CropsError.
    """
    logs, out = Path(os.path.abspath(logs)), Path(os.path.abspath(out))
    cache = out / ".cache"
    cache.mkdir(parents=True, exist_ok=True)
    # Stable names: what is passed to a component is part of its cache key.
    registry = registry or f"sqlite:///{out / 'registry' / 'mlflow.db'}"
    (out / "registry").mkdir(exist_ok=True)
    with _llm(logs, llm, cache) as url:
        arguments = {f"{name}_config": config.section_json(name) for name in SECTIONS}
        arguments |= {
            "logs": str(logs), "fingerprint": fingerprint(logs), "llm": url or "", "registry": registry,
            "checkpoints": str(cache / "checkpoints"),
        }  # fmt: skip
        _execute(cache, arguments, verbose=verbose)
    return _collect(cache, out)


def fingerprint(logs: Path) -> str:
    """Of the log's files (path, size, modification time) and of this project's source (content): the root of the cache."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in logs.rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(logs)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    root = Path(__file__).resolve().parent.parent
    for path in sorted(p for name in SOURCES for p in (root / name).rglob("*") if p.suffix in {".py", ".j2", ".yaml"}):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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
        self.console.print(f"[bold]{entry['stage']:<26}[/bold] {entry['seconds']:7.1f} s  {numbers}", soft_wrap=True)


def _execute(cache: Path, arguments: dict[str, str], *, verbose: bool) -> None:
    from kfp import local

    from pipelines.training import training

    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(cache / "artifacts"), raise_on_error=True,
        enable_caching=True, cache_root=str(cache / "tasks"),
    )  # fmt: skip
    with (cache / "run.log").open("a", encoding="utf-8") as log, _interpreter_first():
        screen = _Screen(log, sys.stdout, verbose=verbose)
        try:
            with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
                training(**arguments)
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
    return str(artifacts.read_json(out / "report.json")["gate"]["verdict"])


@contextlib.contextmanager
def _llm(logs: Path, llm: str | None, cache: Path) -> Iterator[str | None]:
    """`world`: the simulated world's endpoint, for the length of the run, on a port that a restart uses again."""
    if llm != "world":
        yield llm
        return
    port = _port(cache / "llm-port")
    command = [sys.executable, "-m", "crops", "world-llm", "--world", str(logs), "--port", str(port)]
    with (cache / "world-llm.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(process, port, cache / "world-llm.log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(timeout=30)


def _port(kept: Path) -> int:
    if kept.exists():
        return int(kept.read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    kept.write_text(str(port))
    return port


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise ServiceError(f"the world's LLM endpoint ended with {process.returncode}; its log is {log}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise ServiceError(f"the world's LLM endpoint does not answer on port {port} after 60 s; its log is {log}")
