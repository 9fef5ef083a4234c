"""`python -m serving.gateway SETTINGS.json`: one gateway process, until SIGTERM or Ctrl-C."""

import asyncio
import logging
import os
import secrets
import sys
from pathlib import Path

import uvicorn

from serving import reformulation
from serving.events.log import EventLog, EventLogError, SegmentLog
from serving.gateway import app as http
from serving.gateway.service import JsonLines, Service
from serving.gateway.settings import Settings

TOKEN_VARIABLE = "CROPS_ADMIN_TOKEN"  # noqa: S105  a name
# What replicas must not share, and an address that may hold a password: these come from the environment.
VARIABLES = {"replica": "CROPS_REPLICA", "redis": "CROPS_REDIS"}
SECRET_VARIABLE = "CROPS_SEARCH_SECRET"  # noqa: S105  a name


def main(path: Path) -> None:
    """Serves by the settings in the JSON file `path`."""
    settings = Settings.from_json(path.read_text(encoding="utf-8"))
    for key, variable in VARIABLES.items():
        if value := os.environ.get(variable):
            settings = Settings.parse({**settings.model_dump(), key: value}, source=variable)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    token = _kept(settings.admin_token_file, TOKEN_VARIABLE)
    try:
        log = event_log(settings)
    except EventLogError as error:  # a second writer, or a folder that nobody can write
        sys.exit(f"gateway: {error}")
    app = http.create(settings, lambda: service(settings, log), token=token.decode() if token else None)
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
        ),
        app,
        settings.drain_s,
    )
    server.run()


async def service(settings: Settings, log: EventLog | None = None) -> Service:
    """The service with its state, inside the running loop."""
    secret = _kept(settings.secret_file, SECRET_VARIABLE) or secrets.token_bytes(32)
    state: reformulation.Reformulations = reformulation.InProcess(window_s=settings.window_s)
    if settings.redis:
        import redis.asyncio

        client = redis.asyncio.from_url(settings.redis, socket_timeout=0.2, socket_connect_timeout=0.2)
        state = reformulation.InRedis(client, window_s=settings.window_s, secret=secret)
    gateway = Service(settings, secret=secret, log=log, reformulations=state)
    await gateway.look()
    return gateway


def event_log(settings: Settings) -> EventLog | None:
    """Where the settings say that events go; an EventLogError where that cannot be opened."""
    if settings.kafka:
        from serving.events.kafka import KafkaLog  # the extra `cluster`, for those who ask for it

        return KafkaLog(settings.kafka, settings.kafka_topic)
    return SegmentLog(settings.events, replica=settings.replica) if settings.events else None


def _kept(path: Path | None, variable: str) -> bytes | None:
    """A secret from its file, else from the environment."""
    if path is not None:
        return path.read_bytes().strip()
    return os.environ[variable].encode() if os.environ.get(variable) else None


class _Draining(uvicorn.Server):
    """On SIGTERM first says that it is not ready for `drain_s`, so that load balancers look elsewhere, then
    closes.
    """

    def __init__(self, config: uvicorn.Config, app: object, drain_s: float) -> None:
        super().__init__(config)
        self._app, self._drain_s = app, drain_s

    def handle_exit(self, sig: int, frame: object) -> None:
        """Called in the event loop's thread on the first signal."""
        state = getattr(self._app, "state", None)
        running = getattr(state, "service", None)
        if running is None or self._drain_s == 0 or running.draining:
            super().handle_exit(sig, frame)  # type: ignore[arg-type]
            return
        running.draining = True
        close = super().handle_exit
        asyncio.get_running_loop().call_later(self._drain_s, lambda: close(sig, frame))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
