"""Errors as OpenAI's clients know them: ``{"error": {"message", "type", "param", "code"}}`` with a status."""

from __future__ import annotations

from typing import Any

from kvorum.errors import BadRequest, BadTrace, BlockMismatch, KvorumError, OutOfPages, UnknownName, ViewError


class ApiError(Exception):
    """A refusal with its status. ``retry`` is the number of seconds after which to try again."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param, self.retry = (
            *(status, message, kind, code, param, retry),
        )

    @property
    def body(self) -> dict[str, Any]:
        """The reply's body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """The reply's headers."""
        return {} if self.retry is None else {"Retry-After": str(self.retry)}


def missing(what: str) -> ApiError:
    """There is no such thing."""
    return ApiError(404, what, code="not_found")


def conflict(why: str) -> ApiError:
    """Not in this state."""
    return ApiError(409, why, code="conflict")


def busy(why: str, retry: int) -> ApiError:
    """Too much at once."""
    return ApiError(429, why, kind="rate_limit_error", code="server_busy", retry=max(1, retry))


def unstored(why: str) -> ApiError:
    """The store of runs does not take anything now."""
    return ApiError(503, why, kind="server_error", code="store_unavailable", retry=5)


def told(error: BaseException) -> ApiError:
    """Any error as an ``ApiError``; what is not kvorum's own says nothing of its inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OutOfPages):
        return busy(str(error), 5)
    if isinstance(error, UnknownName):
        return ApiError(404, str(error), code="not_found")
    if isinstance(error, (BadRequest, ViewError, BadTrace, BlockMismatch)):
        return ApiError(400, str(error))
    if isinstance(error, KvorumError):
        return ApiError(500, str(error), kind="server_error")
    return ApiError(500, "Something went wrong inside; the server's log says what.", kind="server_error")
