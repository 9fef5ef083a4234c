"""The HTTP side: routes, limits, errors, request ids."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crops.arms import CONTROL
from crops.errors import ServiceError
from crops.text import normalise_query
from serving.events.records import Interaction
from serving.gateway import experiment as experiments
from serving.gateway.errors import ApiError, Malformed, Overloaded, TooLarge, Unauthorised, Unavailable
from serving.gateway.releases import Served
from serving.gateway.search import Hits
from serving.gateway.service import Service
from serving.gateway.settings import Settings

LOG = logging.getLogger("crops.gateway")
CONSOLE, EXPERIMENT = (Path(__file__).with_name(f"{name}.html") for name in ("console", "experiment"))
# The one script that a training report may run; read as a file, because the gateway loads no module of it.
REPORT_SCRIPT = resources.files("crops") / "report" / "queries.js"
EXAMPLES = 8
LARGEST_PLAY_S = 86_400.0
VALUES = 20  # of JSON in an event, its five keys and what may stand in an id or a number among them
DATE = re.compile(r"\d{4}-\d\d-\d\d")
SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# Of every answer: none is a page in another's frame, and none is taken for another type than it says.
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]


def _written(ts: Any) -> Any:
    """A number would be taken for seconds or milliseconds since 1970, whichever looks likelier."""
    if not isinstance(ts, str) or not DATE.match(ts):
        raise ValueError("expected RFC 3339; write it as 2026-01-01T00:00:00Z")
    return ts


def _zoned(ts: datetime) -> datetime:
    if ts.tzinfo is None:
        raise ValueError("no time zone; write it as 2026-01-01T00:00:00Z")
    return ts


class Body(BaseModel):
    """A request body: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, values: Any) -> Any:
        """A hundred thousand unknown keys would be as many faults, each put into words."""
        if isinstance(values, dict) and len(values) > len(cls.model_fields):
            unknown = next(key for key in values if key not in cls.model_fields)
            raise Malformed(f"{unknown[:64]}: Extra inputs are not permitted")
        return values


class SearchBody(Body):
    """One search."""

    query: str = Field(min_length=1, description="What the user typed.")
    user_id: str = Field(
        min_length=1, max_length=256, description="Who: decides the arm; never in metrics or logs."
    )
    k: int = Field(20, ge=1, strict=True, description="Results wanted.")


class EventBody(Body):
    """What a user did with one exposed result."""

    search_id: str = Field(min_length=1, max_length=64)
    video_id: str = Field(min_length=1, max_length=256)
    type: Literal["click", "like", "play"]
    play_s: float | None = Field(
        None, ge=0, le=LARGEST_PLAY_S, strict=True, allow_inf_nan=False, description="Seconds, of plays."
    )
    ts: Annotated[datetime, BeforeValidator(_written), AfterValidator(_zoned)] = Field(
        description="When, RFC 3339 with time zone."
    )


class CompareBody(Body):
    """One query for every arm."""

    query: str = Field(min_length=1)
    k: int = Field(10, ge=1, strict=True)


class AbortBody(Body):
    """Why the experiment is to end."""

    reason: str = Field(min_length=1, max_length=300, description="For the audit trail.")


class Shown(BaseModel):
    """One result."""

    video_id: str
    score: float
    caption: str


class SearchAnswer(BaseModel):
    """The answer to a search."""

    search_id: str
    arm: str | None
    release: str
    results: list[Shown]
    took_ms: float


class Problem(BaseModel):
    """What went wrong, for programs and for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is not the result."""

    error: Problem


ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (400, 404, 413, 429, 500, 503)
}


def create(
    settings: Settings, make: Callable[[], Awaitable[Service]], *, token: str | None = None
) -> FastAPI:
    """The application; `make` gives the service inside the running loop. token: of administrative calls,
    None: refused.
    """

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service = app.state.service = await make()
        following = asyncio.create_task(service.keep_up())
        yield
        service.draining = True
        following.cancel()
        await service.close()

    app = FastAPI(title="CroPS gateway", version="1", lifespan=life, docs_url=None, redoc_url=None)
    app.add_middleware(Limits, settings=settings)
    _errors(app)
    _search(app, settings, token)
    _events(app, settings)
    _state(app, settings, token)
    _experiment(app, settings, token)
    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _search(app: FastAPI, settings: Settings, token: str | None) -> None:
    def limits(query: str, k: int) -> None:
        # Normalised, a text can be 18 times as long; no more of it is normalised than may be given.
        most = settings.max_query_chars
        if (length := max(len(query), len(normalise_query(query[:most])))) > most:
            raise TooLarge(f"query has {length} characters, at most {most} are taken")
        if not any(map(str.isalnum, query)):
            raise Malformed("query holds neither a letter nor a digit")
        if k > settings.max_k:
            raise TooLarge(f"k is {k}, at most {settings.max_k} are given")

    @app.post("/v1/search", response_model=SearchAnswer, responses=ERRORS)
    async def search(body: SearchBody, request: Request) -> dict[str, Any]:
        """Searches what the user's arm serves."""
        limits(body.query, body.k)
        answer = await _service(request).search(body.query, body.user_id, body.k)
        return {
            "search_id": answer.search_id,
            "arm": answer.arm,
            "release": answer.served.release.uri,
            "results": _results(answer.served, answer.hits, body.k),
            "took_ms": _ms(answer.took_s),
        }

    @app.post("/v1/compare", responses=ERRORS | {401: {"model": ErrorAnswer}})
    async def compare(body: CompareBody, request: Request) -> dict[str, Any]:
        """The same query in every arm, and in what was trained beside them where this gateway has it, with
        what each release learnt about the documents. Nothing is logged. Where others than this machine reach
        the gateway it needs the administrative token: training queries are what people typed.
        """
        if not settings.private:
            _administrative(request, token)
        limits(body.query, body.k)
        arms = await _service(request).compare(body.query, body.k)
        return {"arms": {arm: await asyncio.to_thread(_shown, *of, body.k) for arm, of in arms.items()}}

    @app.get("/v1/examples", responses=ERRORS | {401: {"model": ErrorAnswer}})
    async def examples(request: Request) -> dict[str, list[str]]:
        """Queries to begin with, of those that the champion was trained on; for whom `compare` is for."""
        if not settings.private:
            _administrative(request, token)
        champion = _service(request).holder.arms.get(CONTROL)
        return {"queries": champion.examples(EXAMPLES) if champion else []}


def _shown(served: Served, hits: Hits, k: int) -> dict[str, Any]:
    """What the console says of one arm."""
    results = _results(served, hits, k)
    texts = served.texts([result["video_id"] for result in results])
    return {
        "release": served.release.uri,
        "encode_ms": _ms(hits.encode_s),
        "retrieve_ms": _ms(hits.retrieve_s),
        "results": [
            result
            | {
                "text": texts.get(result["video_id"], result["caption"]),
                "learnt": [asdict(p) for p in served.pairs.get(result["video_id"], ())[:3]],
            }
            for result in results
        ],
    }


def _results(served: Served, hits: Hits, k: int) -> list[dict[str, Any]]:
    return [
        {"video_id": served.index.ids[row], "score": round(score, 6), "caption": served.captions[row]}
        for row, score in list(zip(hits.rows, hits.scores, strict=True))[:k]
    ]


def _events(app: FastAPI, settings: Settings) -> None:
    def few(body: Any) -> Any:  # before each of them is looked at
        if isinstance(body, list) and len(body) > settings.max_events:
            raise TooLarge(f"{len(body)} events, at most {settings.max_events} are taken at once")
        return body

    @app.post("/v1/events", status_code=202, responses=ERRORS)
    async def events(
        body: Annotated[list[EventBody], BeforeValidator(few)], request: Request
    ) -> dict[str, int]:
        """202 once all of them are durable; on anything else none of them was taken."""
        records = [
            Interaction(
                **e.model_dump(include={"search_id", "video_id", "type"}),
                ts_us=int(e.ts.timestamp() * 1e6),
                play_s=(e.play_s or 0.0) if e.type == "play" else None,
            )
            for e in body
        ]
        if records:
            await _service(request).take(records)
        return {"accepted": len(records)}


def _state(app: FastAPI, settings: Settings, token: str | None) -> None:
    @app.get("/v1/release")
    async def release(request: Request) -> dict[str, Any]:
        """What is served per arm."""
        holder = _service(request).holder
        return {
            "generation": holder.generation,
            "refused_generation": holder.refused or None,
            "problem": holder.problem or _service(request).features_problem or None,
            "reformulation_window_s": settings.window_s,
            "console_is_private": settings.private,
            "arms": {
                arm: {
                    "release": s.release.uri,
                    "model": s.release.model,
                    "fingerprint": s.fingerprint,
                    "index": s.index_checksum,
                    "documents": len(s.index.ids),
                }
                for arm, s in holder.arms.items()
            },
        }

    @app.post("/v1/admin/look", include_in_schema=False)
    async def look(request: Request) -> dict[str, Any]:
        """Reads the manifest now instead of at the next poll."""
        _administrative(request, token)
        service = _service(request)
        await service.look()
        return {"generation": service.holder.generation, "problem": service.holder.problem or None}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Alive."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"model": ErrorAnswer}})
    async def readyz(request: Request) -> JSONResponse:
        """The champion, which answers for a treatment that fails, is loaded, checked and can be searched."""
        if (missing := await _service(request).ready()) is not None:
            return _error(503, "not_ready", missing)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        return Response(generate_latest(_service(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _administrative(request: Request, token: str | None) -> None:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token is None or not hmac.compare_digest(bearer.encode(), token.encode()):
        raise Unauthorised("this call needs the administrative token")


def _experiment(app: FastAPI, settings: Settings, token: str | None) -> None:
    pages = {
        "readout": settings.readout / "readout.html" if settings.readout else None,
        "report": settings.report,
    }
    routes = {
        "/": CONSOLE,
        "/experiment": EXPERIMENT,
        "/experiment/readout": pages["readout"],
        "/report": pages["report"],
    }

    @app.get("/v1/experiment")
    def experiment() -> dict[str, Any]:
        """Where the rollout stands and what the readout says; null where there is none yet."""
        links = {name: path is not None and path.is_file() for name, path in pages.items()}
        return {
            **experiments.status(settings.rollout, settings.features, settings.readout),
            "links": links,
            "window_s": settings.window_s,
        }

    @app.post("/v1/admin/abort", include_in_schema=False)
    def abort(body: AbortBody, request: Request) -> dict[str, str]:
        """Asks the rollout controller to end the experiment at its next look."""
        _administrative(request, token)
        if settings.rollout is None:
            raise Unavailable("this gateway knows no rollout (its setting `rollout`)", code="no_rollout")
        try:
            experiments.request_abort(settings.rollout, body.reason)
        except (OSError, ServiceError) as error:
            why = getattr(error, "strerror", None) or error
            raise Unavailable(f"{why}: crops rollout abort does it", code="not_writable") from error
        return {"requested": body.reason}

    for route, path in routes.items():
        app.add_api_route(route, _page(path), include_in_schema=False)

    @app.get("/data_docs/{name}.html", include_in_schema=False)
    async def data_docs(name: str) -> FileResponse:
        """The log's Data Docs, which lie beside the report that links to them."""
        beside = settings.report.parent / "data_docs" if settings.report and name.isidentifier() else None
        return await _page(beside / f"{name}.html" if beside else None)()


def _page(path: Path | None) -> Callable[[], Awaitable[FileResponse]]:
    # Our own scripts alone may run: those of the two pages, and the report's, whatever else stands in it.
    if path in (CONSOLE, EXPERIMENT) and path is not None:
        ours = SCRIPT.findall(path.read_bytes())
    else:
        ours = [REPORT_SCRIPT.read_bytes().removesuffix(b"\n")]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one).digest()).decode()}'" for one in ours]
    policy = f"{POLICY}; script-src {' '.join(hashes)}"

    async def given() -> FileResponse:
        if path is None or not path.is_file():
            raise HTTPException(404, "not there yet")
        return FileResponse(path, media_type="text/html", headers={"content-security-policy": policy})

    return given


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def known(_request: Request, error: ApiError) -> JSONResponse:
        return _error(error.status, error.code, str(error), error.retry_after_s)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return _error(Malformed.status, Malformed.code, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed"}
        codes |= {kind.status: kind.code for kind in (TooLarge, Overloaded)}
        code = codes.get(error.status_code, Malformed.code)
        answer = _error(error.status_code, code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer


def _error(status: int, code: str, message: str, retry_after_s: int | None = None) -> JSONResponse:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else None
    text = message.encode(errors="replace").decode()  # of a key may be half a character, which is no UTF-8
    return JSONResponse({"error": {"code": code, "message": text}}, status, headers)


def _host(header: bytes) -> str:
    """The name in a header Host, without port and brackets."""
    name = header.decode("latin-1").lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


class Limits:
    """Bodies up to max_body_bytes, whatever their header says, up to max_bodies_bytes in all, and of as many
    JSON values as that many events can have; an id for every request, taken over or made; one log line each.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.most, self.called = app, settings.max_body_bytes, settings.called
        self.most_in_all, self._held = settings.max_bodies_bytes, 0
        # An event has five; reading 1 MiB of nothing but empty lists would hold up everybody for 0.2 s.
        self.most_values = VALUES * settings.max_events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")[:64]
        if not (request_id and request_id.isascii() and request_id.isprintable()):
            request_id = uuid.uuid4().hex
        started_s, status, read, values = time.perf_counter(), 0, 0, 0

        async def limited() -> Message:
            nonlocal read, values
            message = await receive()
            part = message.get("body", b"")
            read, self._held = read + len(part), self._held + len(part)
            values += sum(map(part.count, (b",", b"[", b"{")))
            # FastAPI turns anything but its own exception into a 400.
            if read > self.most:
                raise HTTPException(TooLarge.status, f"the body has more than {self.most} bytes")
            if values > self.most_values:
                raise HTTPException(TooLarge.status, f"the body holds more than {self.most_values} values")
            if self._held > self.most_in_all:
                raise HTTPException(
                    Overloaded.status,
                    "too much of other requests is being read",
                    {"Retry-After": str(Overloaded.retry_after_s)},
                )
            return message

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS, (b"x-request-id", request_id.encode())]
                if _service(Request(scope)).draining:
                    # Else a client's next request could meet the end of the drain on a kept connection.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            length = headers.get(b"content-length", b"0")
            if length.isdigit() and int(length) > self.most:
                raise TooLarge(f"the body has more than {self.most} bytes")
            if self.called is not None and _host(headers.get(b"host", b"")) not in self.called:
                raise Malformed("this is not the gateway of that host")
            await self.app(scope, limited, named)
        except (TooLarge, Malformed) as error:
            if status == 0:
                await _error(error.status, error.code, str(error))(scope, receive, named)
        except Exception:
            LOG.exception("a fault of this service", extra={"request_id": request_id, "path": scope["path"]})
            if status == 0:
                await _error(
                    ApiError.status, ApiError.code, "a fault of this service; its log has the trace"
                )(scope, receive, named)
        finally:
            self._held -= read
            _service(Request(scope)).metrics.answers.labels(
                getattr(scope.get("route"), "path", "other"), str(status)
            ).inc()
            if scope["path"].startswith("/v1/"):
                took = round((time.perf_counter() - started_s) * 1000, 2)
                LOG.info(
                    "request",
                    extra={"request_id": request_id, "path": scope["path"], "status": status, "ms": took},
                )
