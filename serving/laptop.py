"""`crops serve`: Triton and a gateway as child processes of this one, from a release to a URL, until it is
interrupted.
"""

import contextlib
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx

from crops import secret
from crops.errors import ServiceError
from crops.release import layout, manifest
from crops.release.manifest import Manifest, Release
from crops.release.triton import repository
from serving import children, listening
from serving.gateway.settings import Settings
from serving.triton import follow, install, launch

READY_S = 60.0
SILENT = 3  # questions after which a gateway that answers nothing is started anew


def release_of(folder: Path, uri: str) -> Release:
    """The manifest's entry for a release folder on this machine; an InputError if a file that Triton would
    take is not the release's.
    """
    layout.check(folder, wanted=layout.of_model)
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
    venv, url = install.ensure(say=say), _manifest(state, arms)
    http, grpc, metrics = launch.free_ports(3)
    ports, ended = launch.Ports(http=http, grpc=grpc, metrics=metrics), _Ended(listen=handle_signals)
    restarts = _Restarts(restarts_a_minute, say)

    def start_triton(*, again: bool = False) -> _Triton:
        with ended.at_once():
            return restarts.until(partial(_Triton, venv, state, ports, url, instances), again=again)

    triton, gateway = None, None
    try:
        triton = start_triton()
        address = listening.url(host, port)
        values = {
            "manifest": url,
            "triton": triton.server.grpc,
            "host": host,
            "port": port,
            "state": state,
            "secret_file": _secret(state / "secret"),
            "events": events,
            **settings,
        }
        checked = state / "gateway.json"
        checked.write_text(
            Settings.parse(values, source="gateway").model_dump_json(indent=2) + "\n", encoding="utf-8"
        )
        gateway, ready_by_s = _Gateway(state, checked, address), time.monotonic() + READY_S
        ready = False
        while not ended.requested and not stop():
            if triton.server.process.poll() is not None:
                restarts.count(f"Triton ended{triton.why}; its log is {triton.server.log}")
                triton.stop()
                triton, ready_by_s = start_triton(again=True), time.monotonic() + READY_S
            if gateway.process.poll() is not None:
                gateway.check(ready=ready)
                restarts.count(f"the gateway ended{gateway.why}; its log is {gateway.log}")
                gateway.close()
                gateway, ready_by_s = _Gateway(state, checked, address), time.monotonic() + READY_S
            if not ready and (ready := gateway.ready(ready_by_s)):
                say(f"Triton: {triton.server.http}")
                took_s = time.monotonic() - started_s
                say(f"ready in {took_s:.1f} s: {address}  (console), logs in {state}")
            triton.look()
            time.sleep(0.1)
    except _Asked:
        pass
    finally:
        for child in (gateway, triton):
            if child is not None:
                child.stop()
        ended.restore()
    say("stopped")


class _Triton:
    """A Triton with the encoder of every arm of the manifest at `url` loaded, warm and watched. Its key lies
    in state/triton.key, for `crops deploy` (deploy.triton_key_file).
    """

    def __init__(
        self, venv: Path, state: Path, ports: launch.Ports, url: str, instances: repository.Instances
    ) -> None:
        cfg = follow.Settings(manifest=url, venv=venv, repository=state / "models", state=state / "triton")
        key = secret.read(_secret(state / "triton.key")).decode("ascii")
        self.server = launch.start(venv, cfg.repository, cfg.state, ports, key=key)
        self._follower = follow.Follower(cfg, self.server, instances=instances)
        self._look_at_s = 0.0
        try:
            self.server.wait_live()
            self._follower.keep_watch()
            self.look()
            if self._follower.problem:
                raise ServiceError(self._follower.problem)
        except BaseException as error:
            self._follower.close()
            self.server.stop()
            # Negative: by a signal, the one too that ends what hangs.
            if isinstance(error, ServiceError) and self.server.process.returncode < 0:
                raise _Killed(str(error)) from error
            raise

    @property
    def why(self) -> str:
        """What is known about its end."""
        return f": {self._follower.lost}" if self._follower.lost else f" with {self.server.process.poll()}"

    def look(self) -> None:
        """Follows the manifest, once a second."""
        if time.monotonic() >= self._look_at_s:
            self._follower.look()
            self._look_at_s = time.monotonic() + self._follower.settings.poll_s

    def stop(self) -> None:
        self._follower.close()
        self.server.stop()


class _Killed(ServiceError):
    """Triton did not end by itself while it started: that says nothing about what it was to load."""


class _Restarts:
    """A child that ends is started again; one that ends again and again is a ServiceError."""

    def __init__(self, most: int, say: Callable[[str], None], within_s: float = 60.0) -> None:
        self._most, self._say, self._within_s = most, say, within_s
        self._ends: list[float] = []

    def count(self, what: str) -> None:
        now_s = time.monotonic()
        self._ends = [end for end in self._ends if now_s - end < self._within_s] + [now_s]
        if len(self._ends) > self._most:
            raise ServiceError(f"{what}; the {len(self._ends)}th end within a minute")
        self._say(f"{what}; starting it again")

    def until(self, start: Callable[[], "_Triton"], *, again: bool = False) -> "_Triton":
        """What `start` returns, tried again where Triton was killed meanwhile, and `again`, once it has
        served, whatever it failed on: a machine that is short of time is no fault of the release.
        """
        while True:
            try:
                return start()
            except ServiceError as error:
                if not again and not isinstance(error, _Killed):
                    raise
                self.count(str(error))


class _Asked(BaseException):
    """SIGTERM or Ctrl-C came while Triton was being started."""


class _Ended:
    """Turns the first SIGTERM or Ctrl-C into a flag: the children are ended in order, the gateway first."""

    def __init__(self, *, listen: bool) -> None:
        self.requested = self._at_once = False
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT) if listen}

    def _ask(self, _signal: int, _frame: object) -> None:
        first, self.requested = not self.requested, True
        if first and self._at_once:
            raise _Asked

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block, which may take minutes and looks at no flag, a signal is an _Asked."""
        if self.requested:
            raise _Asked
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _manifest(state: Path, arms: dict[str, Release]) -> str:
    """Says what is served, as a new generation where it is something else than before."""
    url = str((state / "manifest.json").resolve())
    current = manifest.read(url)
    if dict(current.arms) != arms:
        manifest.write(url, Manifest(generation=current.generation + 1, arms=arms))
    return url


def _secret(path: Path) -> Path:
    """Made once, readable by this user alone."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path


class _Gateway:
    """The gateway's process, ended where it answered before and then is silent."""

    def __init__(self, state: Path, settings: Path, address: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "serving.gateway", str(settings)]
        self.log, self._address, self._lost = state / "gateway.log", address, False
        self.process = children.start(command, log=self.log, environment=environment)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="watch the gateway", daemon=True).start()

    @property
    def why(self) -> str:
        """What is known about its end."""
        return ": it did not answer" if self._lost else f" with {self.process.poll()}"

    def check(self, *, ready: bool) -> None:
        """A ServiceError where it ended by itself before it was ever ready: it would do so again."""
        if not ready and self.process.returncode >= 0:
            raise ServiceError(f"the gateway ended with {self.process.returncode}; its log is {self.log}")

    def ready(self, by_s: float) -> bool:
        """Whether it can search; past `by_s` (monotonic seconds) a ServiceError says what is missing."""
        missing = "no answer"
        try:
            answer = httpx.get(f"{self._address}/readyz", timeout=2.0)
            if answer.status_code == httpx.codes.OK:
                return True
            missing = answer.json()["error"]["message"]
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        if time.monotonic() > by_s:
            raise ServiceError(
                f"the gateway is not ready after {READY_S:.0f} s ({missing}); its log is {self.log}"
            )
        return False

    def close(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def stop(self) -> None:
        self.close()
        children.stop(self.process)

    def _watch(self) -> None:
        answered, silent = False, 0
        while not self._ended.wait(1.0) and self.process.poll() is None:
            try:
                httpx.get(f"{self._address}/healthz", timeout=2.0)
                answered, silent = True, 0
            except httpx.HTTPError:
                silent += answered  # loading its first release may take minutes
            if silent >= SILENT:
                self._lost = True
                self.process.kill()
