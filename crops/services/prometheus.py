"""Questions to a Prometheus, by its HTTP API."""

from typing import Any

import httpx

from crops.errors import ServiceError


def ask(
    url: str, query: str, *, at_s: float | None = None, timeout_s: float = 10.0
) -> list[tuple[dict[str, str], float]]:
    """(labels, value) of every series of an instant query at `at_s` (Unix seconds; None: now); NaN is left
    out.
    """
    parameters: dict[str, Any] = {"query": query} | ({} if at_s is None else {"time": at_s})
    try:
        answer = httpx.get(f"{url}/api/v1/query", params=parameters, timeout=timeout_s)
        body = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServiceError(f"{url}: no answer from Prometheus: {type(error).__name__} {error}") from error
    if not isinstance(body, dict) or "status" not in body:
        raise ServiceError(f"{url}: {answer.status_code}, and no answer of Prometheus: {answer.text[:200]!r}")
    if body["status"] != "success":
        raise ServiceError(
            f"{url}: Prometheus says {answer.status_code}: {body.get('error', answer.text[:200])} ({query})"
        )
    result = body["data"]["result"]
    rows = (
        [({}, result)]
        if body["data"]["resultType"] == "scalar"
        else [(r["metric"], r["value"]) for r in result]
    )
    return [(labels, float(value)) for labels, (_at, value) in rows if float(value) == float(value)]


def one(url: str, query: str, *, at_s: float | None = None) -> float | None:
    """The only value of a query; None where it has none. A ServiceError where it has several."""
    series = ask(url, query, at_s=at_s)
    if len(series) > 1:
        raise ServiceError(f"{url}: {query} gives {len(series)} series, expected one")
    return series[0][1] if series else None
