"""What the gateway answers instead of a result: one class, one status, one code. The body is {"error":
{"code", "message"}}.
"""


class ApiError(Exception):
    """Base: `status` of the answer, `code` for programs, the message for people."""

    status, code = 500, "internal"
    retry_after_s: int | None = None


class Malformed(ApiError):
    """The body is not what the OpenAPI document says."""

    status, code = 400, "malformed"


class Unauthorised(ApiError):
    """An administrative call without the token."""

    status, code = 401, "unauthorised"


class UnknownSearch(ApiError):
    """A search_id that this service never gave out."""

    status, code = 404, "unknown_search"


class TooLarge(ApiError):
    """Body, query or list over its limit."""

    status, code = 413, "too_large"


class Overloaded(ApiError):
    """More requests than can be answered within the deadline; nothing was queued for this one."""

    status, code, retry_after_s = 429, "overloaded", 1


class Unavailable(ApiError):
    """No release is served, or the encoder or the event log does not answer. `code` says which."""

    status, retry_after_s = 503, 1

    def __init__(self, message: str, *, code: str = "no_release") -> None:
        super().__init__(message)
        self.code = code


# What becomes of a search, in the metric of this name.
OUTCOMES = (
    "ok",
    "empty",
    "encoder_unavailable",
    "index_unavailable",
    "event_log",
    "deadline",
    "no_release",
    Overloaded.code,
    ApiError.code,
)
