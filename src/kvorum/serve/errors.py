"""Errors as OpenAI's clients know them: ``{"error": {"message", "type", "param", "code"}}`` with a status."""

from __future__ import annotations

from kvorum.errors import BadRequest, BadTrace, BlockMismatch, KvorumError, OutOfPages, UnknownName, ViewError
from kvorum.jsontypes import JsonObject


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
        self.status = status
        self.message = message
        self.retry = retry
        self._kind = kind
        self._code = code
        self._param = param

    @property
    def body(self) -> JsonObject:
        """The reply's body, as OpenAI's clients read it."""
        return {"error": {"message": self.message, "type": self._kind, "param": self._param, "code": self._code}}

    @property
    def headers(self) -> dict[str, str]:
        """The reply's headers beside the usual ones: after how many seconds to try again."""
        return {} if self.retry is None else {"Retry-After": str(self.retry)}


def missing(what: str) -> ApiError:
    """404: there is no such thing."""
    return ApiError(404, what, code="not_found")


def conflict(why: str) -> ApiError:
    """409: the thing is in a state in which this cannot be done."""
    return ApiError(409, why, code="conflict")


def busy(why: str, retry: int) -> ApiError:
    """429: too much at once; worth another try after ``retry`` seconds."""
    return ApiError(429, why, kind="rate_limit_error", code="server_busy", retry=max(1, retry))


def unstored(why: str) -> ApiError:
    """503: the store of runs takes nothing now."""
    return ApiError(503, why, kind="server_error", code="store_unavailable", retry=5)


def as_api_error(error: BaseException, param: str | None = None) -> ApiError:
    """Any error as an ``ApiError``; of what is not kvorum's own nothing is shown. ``param``: the field at fault."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OutOfPages):
        return busy(str(error), 5)
    if isinstance(error, UnknownName):
        return ApiError(404, str(error), code="not_found", param=param)
    if isinstance(error, (BadRequest, ViewError, BadTrace, BlockMismatch)):
        return ApiError(400, str(error), param=param)
    if isinstance(error, KvorumError):
        return ApiError(500, str(error), kind="server_error")
    return ApiError(500, "Something went wrong inside; the server's log says what.", kind="server_error")
