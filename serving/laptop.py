"""`crops serve`: Triton and a gateway as child processes of this one, from a release to a URL, until it is
interrupted.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import httpx

from crops.errors import ServiceError
from crops.release import layout, manifest
from crops.release.manifest import Manifest, Release
from crops.release.triton import control, repository
from serving import children
from serving.gateway.settings import Settings
from serving.triton import install, launch

READY_S = 60.0


def release_of(folder: Path, uri: str) -> Release:
    """The manifest's entry for a release folder on this machine; an InputError if a file that Triton would
    take is not the release's.
    """
    layout.check(folder, wanted=layout.of_encoder)
    checksum = layout.checksum(folder)
    return Release(
        uri=uri, model=repository.model_name(uri, checksum), files=str(folder.resolve()), checksum=checksum
    )


def serve(
    arms: dict[str, Release],
    state: Path,
    *,
    host: str,
    port: int,
    events: Path | None,
    settings: Mapping[str, object],
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    handle_signals: bool = True,
    instances: repository.Instances = repository.Instances(),  # noqa: B008  a value
    restarts_a_minute: int = 5,
) -> None:
    """Serves `arms` until SIGTERM, Ctrl-C or `stop`. A child that ends by itself is started again. `state`
    keeps everything.

    handle_signals: False in any thread but the main one, which alone may listen to signals.
    """
    started_s = time.monotonic()
    state.mkdir(parents=True, exist_ok=True)
    venv = install.ensure(say=say)
    http, grpc, metrics = launch.free_ports(3)
    ports, ended = launch.Ports(http=http, grpc=grpc, metrics=metrics), _Ended(listen=handle_signals)
    restarts, start_triton = (
        _Restarts(restarts_a_minute),
        partial(_triton, venv, state, ports, arms, instances),
    )
    triton, gateway = start_triton(), None
    try:
        address = f"http://{host}:{port}"
        values = {
            "manifest": _manifest(state, arms),
            "triton": triton.grpc,
            "host": host,
            "port": port,
            "state": state,
            "secret_file": _secret(state),
            "events": events,
            **settings,
        }
        checked = state / "gateway.json"
        checked.write_text(
            Settings.parse(values, source="gateway").model_dump_json(indent=2) + "\n", encoding="utf-8"
        )
        gateway = _gateway(state, checked)
        _wait_ready(gateway, address, state / "gateway.log")
        say(f"Triton: {triton.http}")
        say(f"ready in {time.monotonic() - started_s:.1f} s: {address}  (console), logs in {state}")
        while not ended.requested and not stop():
            if triton.process.poll() is not None:
                restarts.count("Triton", triton.process.returncode, triton.log, say)
                triton = start_triton()
            if gateway.poll() is not None:
                restarts.count("the gateway", gateway.returncode, state / "gateway.log", say)
                gateway = _gateway(state, checked)
            time.sleep(0.1)
    finally:
        if gateway is not None:
            children.stop(gateway)
        triton.stop()
        ended.restore()
    say("stopped")


def _triton(
    venv: Path, state: Path, ports: launch.Ports, arms: dict[str, Release], instances: repository.Instances
) -> launch.Server:
    """A Triton with every arm's encoder loaded and warm."""
    server = launch.start(venv, state / "models", state / "triton", ports)
    try:
        server.wait_live()
        for release in arms.values():
            repository.write(Path(release.files), state / "models", release.model, instances)
            control.load(server.http, release.model)
    except BaseException:
        server.stop()
        raise
    return server


class _Restarts:
    """A child that ends by itself is started again; one that ends again and again is a ServiceError."""

    def __init__(self, most: int, within_s: float = 60.0) -> None:
        self._most, self._within_s = most, within_s
        self._ends: list[float] = []

    def count(self, name: str, code: int | None, log: Path, say: Callable[[str], None]) -> None:
        now_s = time.monotonic()
        self._ends = [end for end in self._ends if now_s - end < self._within_s] + [now_s]
        if len(self._ends) > self._most:
            raise ServiceError(
                f"{name} ended with {code}, the {len(self._ends)}th end within a minute; its log is {log}"
            )
        say(f"{name} ended with {code}; starting it again, its log is {log}")


class _Ended:
    """Turns the first SIGTERM or Ctrl-C into a flag: the children are ended in order, the gateway first."""

    def __init__(self, *, listen: bool) -> None:
        self.requested = False
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT) if listen}

    def _ask(self, _signal: int, _frame: object) -> None:
        self.requested = True

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _manifest(state: Path, arms: dict[str, Release]) -> str:
    """Says what is served, as a new generation where it is something else than before."""
    url = str((state / "manifest.json").resolve())
    held = manifest.read(url)
    if dict(held.arms) != arms:
        manifest.write(url, Manifest(generation=held.generation + 1, arms=arms))
    return url


def _secret(state: Path) -> Path:
    """What signs search ids: made once, readable by this user alone."""
    path = state / "secret"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path


def _gateway(state: Path, settings: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "serving.gateway", str(settings)]
    return children.start(command, log=state / "gateway.log", environment=environment)


def _wait_ready(gateway: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline, missing = time.monotonic() + READY_S, "no answer"
    while time.monotonic() < deadline:
        if gateway.poll() is not None:
            raise ServiceError(f"the gateway ended with {gateway.returncode}; its log is {log}")
        try:
            answer = httpx.get(f"{address}/readyz", timeout=2.0)
            if answer.status_code == httpx.codes.OK:
                return
            missing = answer.json()["error"]["message"]
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        time.sleep(0.05)
    raise ServiceError(f"the gateway is not ready after {READY_S:.0f} s ({missing}); its log is {log}")
