"""How the servers in a comparison of whole jobs are asked: JSON over HTTP, with errors that name the server."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from kvorum.errors import BenchError
from kvorum.jsontypes import Json

REPLY_SECONDS = 3600.0


def post_json(client: httpx.Client, server: str, path: str, body: Mapping[str, Json]) -> dict[str, Json]:
    """What ``server``, as errors call it, replies to ``body``. Raises BenchError for nothing and for a refusal."""
    try:
        reply = client.post(path, json=dict(body))
    except httpx.TransportError as error:
        raise BenchError(f"{server} did not answer: {error}") from error
    if reply.status_code >= 400:
        raise BenchError(f"{server} refused {path}: {reply.text[:200]}")
    found: dict[str, Json] = reply.json()
    return found
