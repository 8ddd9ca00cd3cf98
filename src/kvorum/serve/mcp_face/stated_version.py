"""The version of the protocol that a message states in its ``_meta``, which must be the one that its header states.

The SDK tells by the header alone of which age a message is, and does not read ``_meta`` of those of an older one.
"""

from __future__ import annotations

import json

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

_HEADER = "mcp-protocol-version"
_META = "io.modelcontextprotocol/protocolVersion"
_MISMATCH = -32020
"""JSON-RPC's code for a header that differs from the body, by the protocol's revision of 2026-07-28."""


def disagreement(headers: Headers, body: bytes) -> JSONResponse | None:
    """The refusal of a message whose header states another version than it does, or none; None: they agree."""
    try:
        message = json.loads(body or b"null")
    except (ValueError, RecursionError):
        return None  # which is the SDK's to say
    params = message.get("params") if isinstance(message, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    if not isinstance(meta, dict) or _META not in meta or meta[_META] == headers.get(_HEADER):
        return None
    told = f"The header MCP-Protocol-Version is {headers.get(_HEADER)!r:.80}, and _meta says {meta[_META]!r:.80}."
    number = message.get("id")
    known = number if isinstance(number, str | int) else None
    return JSONResponse({"jsonrpc": "2.0", "id": known, "error": {"code": _MISMATCH, "message": told}}, 400)
