"""`python -m serving.triton.follow SETTINGS.json`: a Triton that serves what the release manifest says, until
SIGTERM.

The container's main process. It runs tritonserver, and for each arm of the manifest brings the encoder's
files, checks them, writes the model into its own repository and loads it. So Tritons are as many as one
likes, and a new or restarted one needs nobody to load its models. Only this process knows the key of its
Triton's control APIs. GET :health_port/readyz answers 200 while every model of the manifest gives vectors,
and goes on doing so while a newer manifest is loaded beside it: a swap never leaves the service without a
ready Triton.

A model whose processes died or hang is loaded anew; a server that does not answer, or with which that does
not help, is ended. `crops serve` does the same with its Triton, by the same Follower.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from pydantic import Field

from crops.config.base import StageConfig
from crops.errors import ConfigError, CropsError
from crops.release import layout, manifest
from crops.release.fetch import BadRelease, fetch, forget
from crops.release.manifest import Manifest, Release
from crops.release.triton import control, repository
from serving import listening
from serving.triton import launch

LOG = logging.getLogger("crops.triton")
WATCH_S, ANSWER_S = 1.0, 1.5  # between two watches; for one answer
SILENT = 2  # watches without a vector until a model is loaded anew: within 5 s
ENDS = (signal.SIGTERM, signal.SIGINT)
MEND_S = 20.0  # for loading it anew; longer, and the server is started anew


class Settings(StageConfig):
    """What a following Triton needs to know."""

    manifest: str = Field(min_length=1, description="fsspec URL of the release manifest.")
    venv: Path | None = Field(
        None, description="Environment with the wheel's server and backend; none: NVIDIA's container."
    )
    repository: Path = Field(Path("models"), description="Triton's model repository, this server's own.")
    state: Path = Field(Path("state"), description="Folder for fetched encoders and the server's log.")
    host: str = Field(listening.EVERY, description="Address to listen on; ::, every one of IPv6 and IPv4.")
    http_port: int = Field(8000, ge=1, le=65535, description="KServe v2 over HTTP.")
    grpc_port: int = Field(8001, ge=1, le=65535, description="KServe v2 over gRPC.")
    metrics_port: int = Field(8002, ge=1, le=65535, description="Triton's metrics.")
    health_port: int = Field(8003, ge=1, le=65535, description="/readyz and /healthz of this process.")
    instances: int = Field(
        0, ge=0, description="Instances of an encoder; 0: one per usable core, or one on a GPU."
    )
    threads: int = Field(1, ge=1, description="Threads of an instance.")
    providers: tuple[str, ...] = Field(
        ("CPUExecutionProvider",), min_length=1, description="ONNX Runtime providers, best first."
    )
    poll_s: float = Field(1.0, gt=0, description="Seconds between two looks at the manifest.")
    keep_s: float = Field(
        300.0, ge=0, description="Seconds that a model stays after it left the manifest: gateways may lag."
    )


class Follower:
    """Keeps the models of one Triton at what a manifest says, and alive. `look` is called again and again by
    one thread, `watch` by another: loading a new release may take minutes.
    """

    def __init__(
        self,
        settings: Settings,
        server: launch.Server,
        *,
        instances: repository.Instances | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """instances: how the models run; None: as the settings say."""
        self.settings, self._server, self._clock = settings, server, clock
        self._instances = instances or repository.Instances(
            count=settings.instances, threads=settings.threads, providers=settings.providers
        )
        self._followed = Manifest()
        self.problem = "no manifest has been read yet"
        self.lost = ""  # why this server is beyond mending
        self._serving: dict[
            str, str
        ] = {}  # model -> release checksum, of the newest generation that is loaded as a whole
        self._left: dict[str, float] = {}  # model -> when it left the manifest
        self._stubs: dict[int, str] = {}  # process -> model, at the last watch
        self._silent: dict[str, int] = {}  # model -> watches in a row without a vector
        self._encoded: dict[str, int | None] = {}  # model -> texts, when it was silent last
        self._loading, self._bereft = "", 0  # what is being loaded; watches since its process died
        self._ended = threading.Event()

    @property
    def generation(self) -> int:
        """The manifest's that is followed; 0: none."""
        return self._followed.generation

    @property
    def ready(self) -> bool:
        """Whether a whole generation is loaded, warm, and gave vectors at the last watch."""
        return (
            bool(self._serving)
            and not self.lost
            and not self._silent
            and all(control.model_ready(self._server.http, model) for model in self._serving)
        )

    def keep_watch(self) -> None:
        """Watches from a thread of its own until `close`."""

        def work() -> None:
            while not self._ended.wait(WATCH_S):
                self.watch()

        threading.Thread(target=work, name="watch", daemon=True).start()

    def close(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def watch(self) -> None:
        """One look at what is loaded: a real text to each model. What gives no vector, or has lost one of its
        processes, is loaded anew.
        """
        stubs = self._server.stubs()
        dead = {pid: model for pid, model in self._stubs.items() if pid not in stubs}
        self._stubs = self._of_serving(stubs)
        self._watch_loading(stubs.values())
        for model in list(self._serving):
            gone = [pid for pid, of_model in dead.items() if of_model == model]
            if not gone and self._answers(model):
                self._silent.pop(model, None)
                continue
            self._silent[model] = self._silent.get(model, 0) + 1
            if gone or self._silent[model] >= SILENT:
                self._mend(model, gone)

    def _watch_loading(self, running: Collection[str]) -> None:
        """A load never ends whose process is killed, nor does Triton when it is asked to; one that fails by
        itself is answered at once.
        """
        lost = self._loading and self._loading not in running and self._server.bereft()
        self._bereft = self._bereft + 1 if lost else 0
        if self._bereft > SILENT and self._server.process.poll() is None:
            self._give_up(f"{self._loading} lost its process while it was loaded")

    def _answers(self, model: str) -> bool:
        """A vector for this watch's text; under load that may wait, so those of other texts count as well."""
        url, before = self._server.http, self._encoded.get(model)
        if control.encodes(url, model, timeout_s=ANSWER_S):
            self._encoded.pop(model, None)
            return True
        after = self._encoded[model] = control.encoded(url, model, timeout_s=ANSWER_S)
        return None not in (before, after) and before != after

    def _mend(self, model: str, gone: list[int]) -> None:
        url, key = self._server.http, self._server.key
        if self._server.process.poll() is not None:
            return  # whoever runs this sees it
        if not control.live(url, timeout_s=ANSWER_S):
            self._give_up("it does not answer")
            return
        LOG.error("%s gives no vector, or lost a process: loading it anew", model)
        for pid in gone:
            with contextlib.suppress(ProcessLookupError):  # one that is stopped would hold up its end
                os.kill(pid, signal.SIGKILL)
        try:
            control.unload(url, model, key=key, timeout_s=MEND_S)
            control.load(url, model, key=key, timeout_s=MEND_S)
        except CropsError as error:
            self._give_up(f"{model} cannot be loaded anew: {error}")
            return
        self._silent.pop(model, None)
        self._encoded.pop(model, None)
        self._stubs = self._of_serving(self._server.stubs())

    def _of_serving(self, stubs: Mapping[int, str]) -> dict[int, str]:
        """Without those of a model that is being loaded: its first process only reads the model's settings,
        and ends before the model is ready.
        """
        return {pid: model for pid, model in stubs.items() if model in self._serving}

    def _give_up(self, reason: str) -> None:
        """Ends the server, so that whoever runs this starts it again."""
        self.lost = reason
        LOG.error("tritonserver is ended: %s", reason)
        self._server.kill()

    def look(self) -> None:
        """One look: loads what the manifest names and is not there; lets go of what has long left it."""
        try:
            current = manifest.read(self.settings.manifest)
        except CropsError as error:
            self.problem = str(error)
            return
        if not current.arms:
            self.problem = f"{self.settings.manifest} names no release"
        elif current != self._followed:  # not the number alone: a backup may have been put back
            self._take(current)
        self._let_go()

    def _take(self, current: Manifest) -> None:
        for arm, release in current.arms.items():
            try:
                self._load(release)
            except (BadRelease, CropsError, OSError) as error:
                if self.problem != (
                    problem := f"generation {current.generation}, {arm}: {release.uri}: {error}"
                ):
                    LOG.error(problem)
                self.problem = problem
                return
        wanted = {release.model: release.checksum for release in current.arms.values()}
        now_s = self._clock()
        self._left = {m: self._left.get(m, now_s) for m in (self._left | self._serving) if m not in wanted}
        self._serving, self._followed, self.problem = wanted, current, ""
        LOG.info("generation %d: %s", current.generation, ", ".join(wanted))

    def _load(self, release: Release) -> None:
        if control.model_ready(self._server.http, release.model):
            return
        cfg = self.settings
        folder = fetch(release, cfg.state / "releases", wanted=layout.of_model)
        cfg.repository.mkdir(parents=True, exist_ok=True)
        repository.write(folder, cfg.repository, release.model, self._instances)
        self._loading = release.model
        try:
            control.load(self._server.http, release.model, key=self._server.key)
        except control.NotReady as error:
            self._give_up(str(error))
            raise
        finally:
            self._loading = ""

    def _let_go(self) -> None:
        now_s = self._clock()
        for model in [m for m, left_s in self._left.items() if now_s - left_s >= self.settings.keep_s]:
            try:
                control.unload(self._server.http, model, key=self._server.key)
            except CropsError as error:
                LOG.warning("%s stays for now: %s", model, error)  # the watch ends a server that is silent
                return
            shutil.rmtree(self.settings.repository / model, ignore_errors=True)
            del self._left[model]
            LOG.info("%s is unloaded", model)
            forget(self.settings.state / "releases", set(self._serving.values()))


def health(follower: Follower, host: str, port: int) -> listening.Server:
    """Answers /readyz and /healthz in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = follower.ready if self.path == "/readyz" else self.path == "/healthz"
            body = json.dumps(
                {"ready": good, "generation": follower.generation, "problem": follower.problem or None}
            ).encode()
            self.send_response(200 if good else 503)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """A probe every few seconds is not news."""

    server = listening.Server(host, port, Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def main(path: Path) -> int:
    """Follows until SIGTERM (0: at once, also while a model is loaded), or until tritonserver ends by itself
    (1: whoever runs this starts it again).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        cfg = Settings.from_json(path.read_text(encoding="utf-8"))
    except (ConfigError, OSError) as error:
        sys.exit(f"triton: {error}")
    for number in ENDS:
        signal.signal(number, _end)
    shutil.rmtree(cfg.repository, ignore_errors=True)
    ports = launch.Ports(http=cfg.http_port, grpc=cfg.grpc_port, metrics=cfg.metrics_port)
    triton = launch.start(cfg.venv, cfg.repository, cfg.state / "triton", ports, host=cfg.host)
    try:
        triton.wait_live()
        follower = Follower(cfg, triton)
        follower.keep_watch()
        health(follower, cfg.host, cfg.health_port)
        while triton.process.poll() is None:
            follower.look()
            time.sleep(cfg.poll_s)
        LOG.error("tritonserver ended with %s: %s", triton.process.returncode, _tail(triton.log))
        return 1
    finally:
        triton.stop()


def _end(*_: object) -> None:
    """On the first signal; what was begun meanwhile is begun anew at the next start."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 1000))
        return file.read().decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
