"""The KServe v2 HTTP calls that load and unload models at a Triton, local or remote."""

import time

import httpx

from crops.errors import ServiceError

ANSWER_S = 5.0
LOAD_S = 120.0


def live(url: str) -> bool:
    """Whether a Triton answers at `url`, whatever it has loaded."""
    return _status(f"{url}/v2/health/live")


def model_ready(url: str, model: str) -> bool:
    """Whether `model` is loaded and warm."""
    return _status(f"{url}/v2/models/{model}/ready")


def load(url: str, model: str, *, timeout_s: float = LOAD_S) -> None:
    """Loads `model` from the repository and returns once it is warm; a ServiceError with Triton's reason
    where it is refused.
    """
    _post(f"{url}/v2/repository/models/{model}/load", timeout_s)
    deadline = time.monotonic() + timeout_s
    while not model_ready(url, model):
        if time.monotonic() > deadline:
            raise ServiceError(f"{url}: model {model} is not ready {timeout_s:.0f} s after it was loaded")
        time.sleep(0.1)


def unload(url: str, model: str, *, timeout_s: float = LOAD_S) -> None:
    """Asks Triton to let go of `model` once its running requests have ended."""
    _post(f"{url}/v2/repository/models/{model}/unload", timeout_s)


def models(url: str) -> dict[str, str]:
    """Every model in the repository and its state (READY, UNAVAILABLE, or empty where it was never
    loaded).
    """
    return {
        entry["name"]: entry.get("state", "")
        for entry in _post(f"{url}/v2/repository/index", ANSWER_S).json()
    }


def _status(url: str) -> bool:
    try:
        return httpx.get(url, timeout=ANSWER_S).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _post(url: str, timeout_s: float) -> httpx.Response:
    try:
        answer = httpx.post(url, json={}, timeout=timeout_s)
    except httpx.HTTPError as error:
        raise ServiceError(f"{url}: no answer from Triton: {type(error).__name__} {error}") from error
    if answer.is_error:
        raise ServiceError(f"{url}: Triton says {answer.status_code}: {answer.text[:400]}")
    return answer
