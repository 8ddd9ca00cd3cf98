"""Refusals as the API that was asked writes them: most as OpenAI's, those of System One and Anthropic as theirs.

The path decides, so that also what is refused before a route is found has the form that the client reads.
"""

from __future__ import annotations

import secrets

from starlette.responses import JSONResponse

from kvorum.jsontypes import Json, JsonObject
from kvorum.serve.errors import ApiError

SYSTEM_ONE = "/v1/systemone"
MESSAGES = "/v1/messages"
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
NO_THREADS = "thread_unsupported_request"
"""The code by which Anthropic's clients learn that they have to send whole conversations."""
REQUEST_ID = "x-typesafe-request-id"
"""The header in which System One's clients look for a request's id."""


def refusal(error: ApiError, path: str) -> JSONResponse:
    """The reply to a request at ``path`` (without the root path) that is refused with ``error``."""
    if path == SYSTEM_ONE:
        status = 422 if error.status == 400 else error.status
        return JSONResponse(_system_one(error), status, {**error.headers, REQUEST_ID: request_id()})
    if path == MESSAGES or path.startswith(f"{MESSAGES}/"):
        return JSONResponse(anthropic_error(error), error.status, {**error.headers, "request-id": request_id()})
    return JSONResponse(error.body, error.status, error.headers)


def refusal_body(error: ApiError, path: str) -> JsonObject:
    """The same as the last words of a stream."""
    return anthropic_error(error) if path.startswith(MESSAGES) else error.body


def anthropic_error(error: ApiError) -> JsonObject:
    """A refusal as Anthropic's API writes it, also as the last event of a stream."""
    kind = _KINDS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    told: dict[str, Json] = {"type": kind, "message": error.message}
    if error.code == NO_THREADS:
        told["details"] = {"error_code": NO_THREADS, "unsupported": [error.param]}
    return {"type": "error", "error": told}


def request_id() -> str:
    """A fresh id of a request."""
    return f"req_{secrets.token_hex(12)}"


def _system_one(error: ApiError) -> JsonObject:
    """``detail`` is a list for what is wrong with fields (422), else a sentence."""
    if error.status != 400:
        return {"detail": error.message}
    place = ["body", *(int(part) if part.isdigit() else part for part in (error.param or "").split(".") if part)]
    return {"detail": [{"loc": place, "msg": error.message, "type": error.code or "value_error"}]}
