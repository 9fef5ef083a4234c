"""The KServe v2 HTTP calls that load and unload models at a Triton, local or remote.

Whoever may load a model runs code there, so a Triton that this project starts (serving.triton.launch) answers
these calls only with its `key`.
"""

import time

import httpx

from crops.errors import ServiceError

ANSWER_S = 5.0
LOAD_S = 120.0
READY_S = 10.0  # once it is loaded: Triton answers a load when it is ready
PROBE = "bread"
HEADER = "crops-control-key"  # of the key; Triton's gRPC wants "triton-grpc-protocol-" before it


class NotReady(ServiceError):
    """Triton says that the model is loaded, and not that it is ready: its process has died since."""


def live(url: str, *, timeout_s: float = ANSWER_S) -> bool:
    """Whether a Triton answers at `url`, whatever it has loaded."""
    return _status(f"{url}/v2/health/live", timeout_s)


def model_ready(url: str, model: str) -> bool:
    """Whether `model` is loaded and warm."""
    return _status(f"{url}/v2/models/{model}/ready")


def encodes(url: str, model: str, *, timeout_s: float) -> bool:
    """Whether `model` gives a vector for a text now: "ready" stays true of one whose processes have died."""
    tensor = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [PROBE]}
    try:
        answer = httpx.post(f"{url}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=timeout_s)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


def encoded(url: str, model: str, *, timeout_s: float) -> int | None:
    """How many texts `model` has encoded since it was loaded; None where Triton does not say."""
    try:
        answer = httpx.get(f"{url}/v2/models/{model}/stats", timeout=timeout_s)
        return int(answer.raise_for_status().json()["model_stats"][0]["inference_count"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError):
        return None


def load(url: str, model: str, *, key: str | None = None, timeout_s: float = LOAD_S) -> None:
    """Loads `model` from the repository and returns once it is warm; a ServiceError with Triton's reason
    where it is refused, NotReady where it does not live on.
    """
    _post(f"{url}/v2/repository/models/{model}/load", key, timeout_s)
    deadline = time.monotonic() + READY_S
    while not model_ready(url, model):
        if time.monotonic() > deadline:
            raise NotReady(f"{url}: model {model} is not ready {READY_S:.0f} s after it was loaded")
        time.sleep(0.1)


def unload(url: str, model: str, *, key: str | None = None, timeout_s: float = LOAD_S) -> None:
    """Asks Triton to let go of `model` once its running requests have ended."""
    _post(f"{url}/v2/repository/models/{model}/unload", key, timeout_s)


def models(url: str, *, key: str | None = None) -> dict[str, str]:
    """Every model in the repository and its state (READY, UNAVAILABLE, or empty where it was never
    loaded).
    """
    return {
        entry["name"]: entry.get("state", "")
        for entry in _post(f"{url}/v2/repository/index", key, ANSWER_S).json()
    }


def _status(url: str, timeout_s: float = ANSWER_S) -> bool:
    try:
        return httpx.get(url, timeout=timeout_s).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _post(url: str, key: str | None, timeout_s: float) -> httpx.Response:
    try:
        answer = httpx.post(url, json={}, headers={HEADER: key} if key else None, timeout=timeout_s)
    except httpx.HTTPError as error:
        raise ServiceError(f"{url}: no answer from Triton: {type(error).__name__} {error}") from error
    if answer.is_error:
        raise ServiceError(f"{url}: Triton says {answer.status_code}: {answer.text[:400]}")
    return answer
