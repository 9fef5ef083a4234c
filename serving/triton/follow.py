"""`python -m serving.triton.follow SETTINGS.json`: a Triton that serves what the release manifest says, until
SIGTERM.

The container's main process. It runs tritonserver, and for each arm of the manifest brings the encoder's
files, checks them, writes the model into its own repository and loads it. So Tritons are as many as one
likes, and a new or restarted one needs nobody to load its models. GET :health_port/readyz answers 200 once
every model of the manifest is warm, and goes on doing so while a newer manifest is loaded beside it: a swap
never leaves the service without a ready Triton. Gateways say `triton_follows`.
"""

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import Field

from crops.config.base import StageConfig
from crops.errors import CropsError
from crops.release import layout, manifest
from crops.release.fetch import BadRelease, fetch, forget
from crops.release.manifest import Manifest, Release
from crops.release.triton import control, repository
from serving.triton import launch

LOG = logging.getLogger("crops.triton")


class Settings(StageConfig):
    """What a following Triton needs to know."""

    manifest: str = Field(min_length=1, description="fsspec URL of the release manifest.")
    venv: Path | None = Field(
        None, description="Environment with the wheel's server and backend; none: NVIDIA's container."
    )
    repository: Path = Field(Path("models"), description="Triton's model repository, this server's own.")
    state: Path = Field(Path("state"), description="Folder for fetched encoders and the server's log.")
    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104  a container's
    http_port: int = Field(8000, ge=1, le=65535, description="KServe v2 over HTTP.")
    grpc_port: int = Field(8001, ge=1, le=65535, description="KServe v2 over gRPC.")
    metrics_port: int = Field(8002, ge=1, le=65535, description="Triton's metrics.")
    health_port: int = Field(8003, ge=1, le=65535, description="/readyz and /healthz of this process.")
    instances: int = Field(0, ge=0, description="Instances of an encoder; 0: one per core, or one on a GPU.")
    threads: int = Field(1, ge=1, description="Threads of an instance.")
    providers: tuple[str, ...] = Field(
        ("CPUExecutionProvider",), min_length=1, description="ONNX Runtime providers, best first."
    )
    poll_s: float = Field(1.0, gt=0, description="Seconds between two looks at the manifest.")
    keep_s: float = Field(
        300.0, ge=0, description="Seconds that a model stays after it left the manifest: gateways may lag."
    )


class Follower:
    """Keeps the models of one Triton at what a manifest says. `look` is called again and again, by one
    thread.
    """

    def __init__(self, settings: Settings, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self._url, self._clock = settings, url, clock
        self.generation = 0
        self.problem = "no manifest has been read yet"
        self._serving: dict[
            str, str
        ] = {}  # model -> release checksum, of the newest generation that is loaded as a whole
        self._left: dict[str, float] = {}  # model -> when it left the manifest

    @property
    def ready(self) -> bool:
        """Whether a whole generation is loaded and warm."""
        return bool(self._serving) and all(control.model_ready(self._url, model) for model in self._serving)

    def look(self) -> None:
        """One look: loads what the manifest names and is not there; lets go of what has long left it."""
        try:
            found = manifest.read(self.settings.manifest)
        except CropsError as error:
            self.problem = str(error)
            return
        if not found.arms:
            self.problem = f"{self.settings.manifest} names no release"
        elif found.generation != self.generation:
            self._take(found)
        self._let_go()

    def _take(self, found: Manifest) -> None:
        for arm, release in found.arms.items():
            try:
                self._load(release)
            except (BadRelease, CropsError, OSError) as error:
                if self.problem != (said := f"generation {found.generation}, {arm}: {release.uri}: {error}"):
                    LOG.error(said)
                self.problem = said
                return
        wanted = {release.model: release.checksum for release in found.arms.values()}
        now_s = self._clock()
        self._left = {m: self._left.get(m, now_s) for m in (self._left | self._serving) if m not in wanted}
        self._serving, self.generation, self.problem = wanted, found.generation, ""
        LOG.info("generation %d: %s", found.generation, ", ".join(wanted))

    def _load(self, release: Release) -> None:
        if control.model_ready(self._url, release.model):
            return
        cfg = self.settings
        folder = fetch(release, cfg.state / "releases", wanted=layout.of_encoder)
        cfg.repository.mkdir(parents=True, exist_ok=True)
        instances = repository.Instances(count=cfg.instances, threads=cfg.threads, providers=cfg.providers)
        repository.write(folder, cfg.repository, release.model, instances)
        control.load(self._url, release.model)

    def _let_go(self) -> None:
        now_s = self._clock()
        for model in [m for m, left_s in self._left.items() if now_s - left_s >= self.settings.keep_s]:
            control.unload(self._url, model)
            shutil.rmtree(self.settings.repository / model, ignore_errors=True)
            del self._left[model]
            LOG.info("%s is unloaded", model)
            forget(self.settings.state / "releases", set(self._serving.values()))


def health(follower: Follower, host: str, port: int) -> ThreadingHTTPServer:
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

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def main(path: Path) -> int:
    """Follows until SIGTERM (0), or until tritonserver ends by itself (1: whoever runs this starts it
    again).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    cfg = Settings.from_json(path.read_text(encoding="utf-8"))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    shutil.rmtree(cfg.repository, ignore_errors=True)
    ports = launch.Ports(http=cfg.http_port, grpc=cfg.grpc_port, metrics=cfg.metrics_port)
    triton = launch.start(cfg.venv, cfg.repository, cfg.state / "triton", ports, host=cfg.host)
    try:
        triton.wait_live()
        follower = Follower(cfg, triton.http)
        served = health(follower, cfg.host, cfg.health_port)
        while triton.process.poll() is None:
            follower.look()
            if ended.wait(cfg.poll_s):
                served.shutdown()
                return 0
        LOG.error("tritonserver ended with %s: %s", triton.process.returncode, _tail(triton.log))
        return 1
    finally:
        triton.stop()


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 1000))
        return file.read().decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
