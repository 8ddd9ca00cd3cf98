"""Errors as OpenAI's clients know them: ``{"error": {"message", "type", "param", "code"}}`` with a status."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


_BRANCH = re.compile(r"constrained-\w+|(list|dict|tuple)\[.*\]|int|str|bool|float|function-.*")
"""How pydantic names the kinds that a value may be of, in the place of an error."""
_WORDS = {
    "dictionary or object to extract fields from": "object",
    "a valid dictionary": "a valid object",
    "Extra inputs are not permitted": "There is no such field",
}


def reason(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """What is wrong with a request and where, as one sentence and a place, from pydantic's list."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"The body is not JSON: {first['ctx']['error']}, at character {first['loc'][-1]}.", None
    if first["type"] == "missing" and first["loc"] == ("body",):
        return "The body is missing: send JSON.", None
    at = _place(first)
    same = [error for error in errors if _place(error)[: len(at)] == at]
    fit = [error for error in same if not error["type"].endswith("_type")] or same  # of the right kind, but not good
    deepest = max(len(_place(error)) for error in fit)
    told = [error for error in fit if len(_place(error)) == deepest]
    told = [error for error in told if _place(error) == _place(told[0])]
    words = list(dict.fromkeys(str(error["msg"]) for error in told))
    message = ", or ".join([words[0], *(word.removeprefix("Input should be ") for word in words[1:])])
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    place = ".".join(_place(told[0]))[:200]
    return (f"{place}: {message}." if place else f"{message}."), place or None


def _place(error: Mapping[str, Any]) -> list[str]:
    parts = [str(part) for part in error["loc"]]
    return [part for part in parts[1:] if not _BRANCH.fullmatch(part)]
