"""One gateway process, until SIGTERM or Ctrl-C."""

import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any, cast

import uvicorn

from crops import secret
from crops.errors import ConfigError, CropsError
from crops.release.fetch import BadRelease
from serving import listening, reformulation, shown
from serving.events.log import EventLog, EventLogError, SegmentLog
from serving.gateway import alternatives
from serving.gateway import app as http
from serving.gateway.connections import Connections
from serving.gateway.service import JsonLines, Service
from serving.gateway.settings import Settings

TOKEN_VARIABLE = "CROPS_ADMIN_TOKEN"  # noqa: S105  a name
# What replicas must not share, and an address that may hold a password: these come from the environment.
VARIABLES = {"replica": "CROPS_REPLICA", "redis": "CROPS_REDIS"}
SECRET_VARIABLE = "CROPS_SEARCH_SECRET"  # noqa: S105  a name


def main(path: Path) -> None:
    """Serves by the settings in the JSON file `path`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    try:
        settings = _settings(path)
        given = secret.given(settings.admin_token_file, TOKEN_VARIABLE)
        token = secret.text(given, settings.admin_token_file or TOKEN_VARIABLE) if given else None
        signing = secret.given(settings.secret_file, SECRET_VARIABLE)
        log = event_log(settings)
        # Of a name, uvicorn itself takes every address.
        sockets = (
            [listening.bound(settings.host, settings.port)] if settings.host == listening.EVERY else None
        )
    # Settings that say nothing, a second writer, a folder nobody can write, no secret.
    except (EventLogError, ConfigError, OSError) as error:
        sys.exit(f"gateway: {error}")
    app = http.create(settings, lambda: _made(settings, log, signing), token=token)
    server = _Draining(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=10,
            backlog=2048,
            http=cast(type[asyncio.Protocol], Connections(settings)),  # uvicorn only calls it
            ws="none",
        ),
        app,
        settings.drain_s,
    )
    server.run(sockets)


def _settings(path: Path) -> Settings:
    settings = Settings.from_json(path.read_text(encoding="utf-8"))
    for key, variable in VARIABLES.items():
        if value := os.environ.get(variable):
            settings = Settings.parse({**settings.model_dump(), key: value}, source=variable)
    if settings.redis:
        _redis(settings.redis)
    return settings


def _redis(url: str) -> Any:
    """A client, which calls nobody yet; a ConfigError, without the address, where none can be made of it."""
    import redis.asyncio

    try:
        return redis.asyncio.from_url(url, socket_timeout=0.2, socket_connect_timeout=0.2)
    except ValueError as error:
        raise ConfigError(f"the address of Redis: {error}") from error


async def _made(settings: Settings, log: EventLog | None, signing: bytes | None) -> Service:
    """The service, or the process's end with a line: what is raised here, uvicorn shows with its trace."""
    try:
        return await service(settings, log, signing)
    except (CropsError, BadRelease, OSError) as error:
        print(f"gateway: {error}", file=sys.stderr, flush=True)
        os._exit(1)


async def service(settings: Settings, log: EventLog | None = None, signing: bytes | None = None) -> Service:
    """The service with its state, inside the running loop. signing: the secret that replicas share; None: one
    of this process alone.
    """
    signing = signing or secrets.token_bytes(32)
    window_s, within_s = settings.window_s, settings.events_within_s
    reformulations: reformulation.Reformulations = reformulation.InProcess(window_s=window_s)
    seen: shown.Shown = shown.InProcess(within_s=within_s)
    if settings.redis:
        client = _redis(settings.redis)
        reformulations = reformulation.InRedis(client, window_s=window_s, secret=signing)
        seen = shown.InRedis(client, within_s=within_s, secret=signing)
    beside = await asyncio.to_thread(alternatives.load, settings.alternatives, settings)
    gateway = Service(
        settings, secret=signing, log=log, reformulations=reformulations, shown=seen, alternatives=beside
    )
    await gateway.look()
    gc.collect()  # now, before anybody waits: see Service
    gc.freeze()
    return gateway


def event_log(settings: Settings) -> EventLog | None:
    """Where the settings say that events go; an EventLogError where that cannot be opened."""
    if settings.kafka:
        from serving.events import kafka  # the extra `cluster`, for those who ask for it

        kafka_settings = kafka.settings_in(settings.kafka_file)
        return kafka.KafkaLog(settings.kafka, settings.kafka_topic, settings=kafka_settings)
    return SegmentLog(settings.events, replica=settings.replica) if settings.events else None


class _Draining(uvicorn.Server):
    """On SIGTERM first says that it is not ready for `drain_s`, so that load balancers look elsewhere, then
    closes. While it loads its first release, minutes where Triton is away, it has promised nothing and ends
    at once.
    """

    def __init__(self, config: uvicorn.Config, app: object, drain_s: float) -> None:
        super().__init__(config)
        self._app, self._drain_s = app, drain_s

    def handle_exit(self, sig: int, frame: object) -> None:
        """Called in the event loop's thread on the first signal."""
        state = getattr(self._app, "state", None)
        running = getattr(state, "service", None)
        if running is None:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
            os._exit(128 + sig)  # process 1 of a container does not die of a signal's default
        if self._drain_s == 0 or running.draining:
            super().handle_exit(sig, frame)  # type: ignore[arg-type]
            return
        running.draining = True
        close = super().handle_exit
        asyncio.get_running_loop().call_later(self._drain_s, lambda: close(sig, frame))  # type: ignore[arg-type]
