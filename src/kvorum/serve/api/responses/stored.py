"""Stored responses that a request names: to look at one, or to go on behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kvorum.jsontypes import JsonObject
from kvorum.serve.api.responses.items import distinct, input_items
from kvorum.serve.api.responses.output import last_words
from kvorum.serve.errors import ApiError, conflict, missing
from kvorum.serve.keys.caller import Caller
from kvorum.serve.service import Service
from kvorum.serve.shared import Shared
from kvorum.store.responses import StoredResponse


async def stored_response(service: Service, response: str, client: Caller) -> StoredResponse:
    """The response that a request names as the one before it. Raises ApiError 404."""
    found = await asyncio.to_thread(service.responses.get, response, client.owner)
    if found is None:
        message = f"There is no stored response {response!r}: it was not stored (store: false), or is deleted."
        raise ApiError(404, message, code="previous_response_not_found", param="previous_response_id")
    return found


async def previous_response(service: Service, response: str, client: Caller) -> StoredResponse:
    """The response that a conversation goes on from. Raises ApiError."""
    found = await stored_response(service, response, client)
    if response in service.responding or found.body["status"] not in ("completed", "incomplete"):
        message = f"The response {response!r} did not come to its end; go on from the one before it."
        raise ApiError(400, message, param="previous_response_id")
    model = str(found.body["model"])
    if model != service.name and model.rpartition(":")[0] != service.name:
        message = f"The response {response!r} is the model {model}'s; name that model, or send its words as the input."
        raise ApiError(400, message, param="previous_response_id")
    return found


async def conversation(
    service: Service, previous: str | None, given: str | Sequence[JsonObject] | None, client: Caller
) -> tuple[StoredResponse | None, list[JsonObject]]:
    """The response before, if one is named, and all items up to here. Raises ApiError."""
    items = input_items(given)
    if previous is None:
        return None, items
    before = await previous_response(service, previous, client)
    return before, distinct([*before.input, *last_words(output_items(before)), *items])


def output_items(found: StoredResponse) -> list[JsonObject]:
    """What it has said."""
    output = found.body["output"]
    return [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []


async def found_response(shared: Shared, response: str, client: Caller) -> StoredResponse:
    """The response of that id as it is now. Raises ApiError 404; 409 where another server may be making it."""
    here = response in shared.responding  # before it is read: it may end meanwhile
    found = await asyncio.to_thread(shared.responses.get, response, client.owner)
    if found is None:
        raise missing(f"There is no response {response!r}.")
    if found.body["status"] in ("queued", "in_progress") and not here:
        if shared.settings.database is not None:
            message = f"The response {response!r} is made by another server, unless that has ended: ask there."
            raise conflict(message)
        found.body["status"] = "failed"  # the server that made it ended
        found.body["error"] = {"code": "server_error", "message": "The server ended before the response did."}
    return found


def dropped_before(before: StoredResponse) -> int:
    """How many messages were left out before what a response's tokens begin with."""
    usage = before.body.get("usage")
    extra = usage.get("kvorum") if isinstance(usage, dict) else None
    count = extra.get("dropped_messages", 0) if isinstance(extra, dict) else 0
    return count if isinstance(count, int) else 0
