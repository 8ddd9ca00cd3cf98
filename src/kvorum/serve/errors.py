"""Errors as OpenAI's clients know them: ``{"error": {"message", "type", "param", "code"}}`` with a status.

``as_api_error`` makes one of any error; of what is wrong with a request's fields, one sentence of our own.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails

from kvorum.errors import (
    BadRequest,
    BadTrace,
    BlockMismatch,
    KvorumError,
    OutOfPages,
    UnknownName,
    ViewError,
    WorkersLost,
)
from kvorum.jsontypes import JsonObject
from kvorum.store.runs import StoreError

UNKNOWN_FIELD = "unknown_field"
"""The kind of error that a body with an unknown field is; its context has the ``message`` and the ``field``."""
_BRANCH = re.compile(r"constrained-\w+|(list|dict|tuple)\[.*\]|int|str|bool|float|function-.*")
"""How pydantic names the kinds that a value may be of, in the place of an error."""
_WRONG: Mapping[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""What is wrong, by the kind of pydantic's error."""


class ApiError(Exception):
    """A refusal with its status. ``param``: the field at fault; ``headers``: of the reply, beside the usual ones."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})
        self.kind, self.code, self.param = kind, code, param

    @property
    def body(self) -> JsonObject:
        """The refusal as OpenAI's API writes it; ``error_forms`` has those of the other APIs."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def missing(what: str) -> ApiError:
    """404: there is no such thing."""
    return ApiError(404, what, code="not_found")


def conflict(why: str) -> ApiError:
    """409: the thing is in a state in which this cannot be done."""
    return ApiError(409, why, code="conflict")


def foreign(block: str, model: str, asked: str) -> ApiError:
    """409: a block of one model is asked of another."""
    return conflict(
        f"The block {block} is the model {model}'s and of no use to {asked}: name {model}, or make it anew."
    )


def busy(why: str, retry: int) -> ApiError:
    """429: too much at once; worth another try after ``retry`` seconds."""
    headers = {"Retry-After": str(max(1, retry))}
    return ApiError(429, why, kind="rate_limit_error", code="server_busy", headers=headers)


def unstored(why: str) -> ApiError:
    """503: the store of runs takes nothing now."""
    return ApiError(503, why, kind="server_error", code="store_unavailable", headers={"Retry-After": "5"})


def unloadable(model: str, why: str) -> ApiError:
    """503: a model that is offered could not be loaded."""
    message = f"The model {model} could not be loaded: {why.rstrip('.')}."
    return ApiError(503, message, kind="server_error", code="model_load_failed", param="model")


def lost(why: str) -> ApiError:
    """503: the processes that hold a model have ended or stand still."""
    return ApiError(503, why, kind="server_error", code="engine_lost", headers={"Retry-After": "30"})


def stopping() -> ApiError:
    """503: the server has been told to stop."""
    why = "The server is stopping; ask again when it is back."
    return ApiError(503, why, kind="server_error", code="server_stopping", headers={"Retry-After": "5"})


def too_long(what: str, longest: int) -> ApiError:
    """400: more tokens than the model has positions."""
    return ApiError(
        400,
        f"{what}, and this model has {longest} positions: give less, or a model with a longer context.",
        code="context_length_exceeded",
    )


def within(count: int, most: int, what: str, param: str | None = None) -> None:
    """Raises ApiError 400 where ``count`` of something is more than ``most``. ``param``: the field at fault."""
    if count > most:
        raise ApiError(400, f"{count} {what} are more than the {most} that this server takes.", param=param)


def as_api_error(error: BaseException, param: str | None = None) -> ApiError:
    """Any error as an ``ApiError``; of what is not kvorum's own nothing is shown. ``param``: the field at fault."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, OutOfPages):
        return busy(str(error), 5)
    if isinstance(error, StoreError):
        return unstored(str(error))
    if isinstance(error, WorkersLost):
        return lost(str(error))
    if isinstance(error, UnknownName):
        return ApiError(404, str(error), code="not_found", param=param)
    if isinstance(error, (BadRequest, ViewError, BadTrace, BlockMismatch)):
        return ApiError(400, str(error), param=param)
    if isinstance(error, KvorumError):
        return ApiError(500, str(error), kind="server_error")
    return ApiError(500, "Something went wrong inside; the server's log says what.", kind="server_error")


def _invalid(errors: Sequence[ErrorDetails]) -> ApiError:
    """What is wrong with a request and where, from pydantic's list; an unknown field comes before all else."""
    first = next((error for error in errors if error["type"] == UNKNOWN_FIELD), errors[0])
    at = _place(first)
    if first["type"] == UNKNOWN_FIELD:
        return ApiError(400, first["ctx"]["message"], param=".".join([*at, first["ctx"]["field"]])[:200])
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not JSON: {first['ctx']['error']}, at character {first['loc'][-1]}.")
    if first["type"] == "missing" and first["loc"] == ("body",):
        return ApiError(400, "The body is missing: send JSON.")
    same = [error for error in errors if _place(error)[: len(at)] == at]
    fit = [error for error in same if not error["type"].endswith("_type")] or same  # of the right kind, but not good
    deepest = max((_place(error) for error in fit), key=len)
    wrong = [error for error in fit if _place(error) == deepest]
    words = list(dict.fromkeys(_WRONG.get(e["type"], "cannot be taken").format(**e.get("ctx", {})) for e in wrong))
    what = " or ".join([words[0], *(word.removeprefix("must be ") for word in words[1:])])
    place = ".".join(deepest)[:200]
    return ApiError(400, f"{place or 'The body'} {what}.", param=place or None)


def _place(error: ErrorDetails) -> list[str]:
    parts = [str(part) for part in error["loc"]]
    return [part for part in parts[1:] if not _BRANCH.fullmatch(part)]
