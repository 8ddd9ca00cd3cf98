"""Items of Responses as messages of a conversation: words, calls of functions, and their outputs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from kvorum.jsontypes import Json, JsonObject
from kvorum.serve.api.content_text import content_text
from kvorum.serve.errors import ApiError

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}
_UNREAD = ("reasoning", "agent_message")
"""Items of earlier outputs that are no part of the conversation."""
PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def new_id(kind: str) -> str:
    """A fresh id of an item of this type."""
    return f"{PREFIXES.get(kind, 'item')}_{secrets.token_hex(16)}"


def input_items(given: str | Sequence[JsonObject] | None) -> list[JsonObject]:
    """A request's input as items, each with a type and an id. Raises ApiError for an item that is none."""
    if given is None or isinstance(given, str):
        content: list[Json] = [{"type": "input_text", "text": given or ""}]
        return [{"id": new_id("message"), "type": "message", "role": "user", "content": content}] if given else []
    found: list[JsonObject] = []
    for at, item in enumerate(given):
        kind = str(item.get("type") or "message")
        _check(item, kind, f"input.{at}")
        found.append({**item, "type": kind, "id": item.get("id") or new_id(kind)})
    return distinct(found)


def distinct(items: Sequence[JsonObject]) -> list[JsonObject]:
    """The same, with a fresh id for each whose id another before it has: lists are paged by them."""
    seen, found = set[str](), list[JsonObject]()
    for item in items:
        number = item["id"] if isinstance(item["id"], str) and item["id"] not in seen else new_id(str(item["type"]))
        seen.add(number)
        found.append({**item, "id": number})
    return found


def _check(item: JsonObject, kind: str, place: str) -> None:
    """Raises ApiError for an item that cannot be read."""
    if not isinstance(item.get("id") or "", str):
        raise ApiError(400, f"{place}.id is a text, or is left out.", param=place)
    if kind == "message":
        if str(item.get("role")) not in _ROLES:
            raise ApiError(400, f"{place} needs a role: user, assistant, system or developer.", param=place)
        content_text(item.get("content"), f"{place}.content")
    elif kind == "function_call":
        if not isinstance(item.get("call_id"), str) or not isinstance(item.get("name"), str):
            raise ApiError(400, f"{place} needs a call_id and a name.", param=place)
    elif kind == "function_call_output":
        if not isinstance(item.get("call_id"), str):
            raise ApiError(400, f"{place} needs the call_id that it is the output of.", param=place)
        content_text(item.get("output"), f"{place}.output")
    elif kind not in _UNREAD:
        raise ApiError(400, f"{place} is of type {kind[:60]!r}, which is not read here.", param=place)


def as_messages(instructions: str | None, items: Sequence[JsonObject]) -> list[dict[str, Json]]:
    """Items as messages in the form of chat completions; what the assistant says and then calls is one message."""
    found: list[dict[str, Json]] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        kind = item["type"]
        if kind == "message":
            text = content_text(item.get("content"), "input")
            found.append({"role": _ROLES[str(item["role"])], "content": text})
        elif kind == "function_call":
            function: dict[str, Json] = {"name": item["name"], "arguments": item.get("arguments") or ""}
            call: dict[str, Json] = {"id": item["call_id"], "type": "function", "function": function}
            last = found[-1] if found else None
            if last is None or last["role"] != "assistant":
                found.append({"role": "assistant", "content": "", "tool_calls": [call]})
            else:
                calls = last.get("tool_calls")
                last["tool_calls"] = [*(calls if isinstance(calls, list) else []), call]
        elif kind == "function_call_output":
            text = content_text(item.get("output"), "input")
            found.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
    return found
