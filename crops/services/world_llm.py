"""The simulated world's LLM as a process beside a run."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crops.errors import ServiceError


@contextmanager
def endpoint(logs: Path, llm: str | None, cache: Path) -> Iterator[str | None]:
    """`world`: the simulated world's endpoint, for the length of the run, on a port that a restart uses
    again.
    """
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
    raise ServiceError(
        f"the world's LLM endpoint does not answer on port {port} after 60 s; its log is {log}"
    )
