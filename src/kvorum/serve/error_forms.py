"""Refusals as the API that was asked writes them: most as OpenAI's, those of System One and Anthropic as theirs.

The path decides, so that also what is refused before a route is found has the form that the client reads.
"""

from __future__ import annotations

import secrets

from starlette.responses import JSONResponse

from kvorum.jsontypes import JsonObject
from kvorum.serve.errors import ApiError

SYSTEM_ONE = "/v1/systemone"
REQUEST_ID = "x-typesafe-request-id"
"""The header in which System One's clients look for a request's id."""


def refusal(error: ApiError, path: str) -> JSONResponse:
    """The reply to a request at ``path`` (without the root path) that is refused with ``error``."""
    if path == SYSTEM_ONE:
        status = 422 if error.status == 400 else error.status
        return JSONResponse(_system_one(error), status, {**error.headers, REQUEST_ID: request_id()})
    return JSONResponse(error.body, error.status, error.headers)


def request_id() -> str:
    """A fresh id of a request."""
    return f"req_{secrets.token_hex(12)}"


def _system_one(error: ApiError) -> JsonObject:
    """``detail`` is a list for what is wrong with fields (422), else a sentence."""
    if error.status != 400:
        return {"detail": error.message}
    place = ["body", *(int(part) if part.isdigit() else part for part in (error.param or "").split(".") if part)]
    return {"detail": [{"loc": place, "msg": error.message, "type": error.code or "value_error"}]}
