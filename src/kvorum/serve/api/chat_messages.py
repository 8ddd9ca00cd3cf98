"""Messages of a request as chat templates take them, and as text for a team."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kvorum.jsontypes import Json
from kvorum.serve.errors import ApiError
from kvorum.serve.request_models.messages import Message

_ROLES = {"developer": "system", "function": "tool"}
"""What chat templates call them."""


def template_messages(messages: Sequence[Message]) -> list[dict[str, Json]]:
    """Content as text, calls with their arguments. Raises ApiError for content that is no text."""
    found: list[dict[str, Json]] = []
    for message in messages:
        told: dict[str, Json] = {"role": _ROLES.get(message.role, message.role), "content": _text(message)}
        if message.tool_calls:
            told["tool_calls"] = [call.model_dump(exclude_none=True) for call in message.tool_calls]
        if message.tool_call_id is not None:
            told["tool_call_id"] = message.tool_call_id
        found.append(told)
    return found


def _text(message: Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    if any(part.type not in ("text", "refusal") for part in message.content):
        raise ApiError(400, "Only parts of type text are taken here.", param="messages")
    return "".join(part.text or part.refusal or "" for part in message.content)


def with_words(messages: Sequence[dict[str, Json]], words: str) -> list[dict[str, Json]]:
    """The conversation with ``words`` behind the user's last, or as a message of the user's."""
    *before, last = messages
    if last["role"] != "user":
        return [*messages, {"role": "user", "content": words.strip()}]
    return [*before, {**last, "content": f"{last['content']}{words}"}]


def problem(messages: Sequence[dict[str, Json]]) -> str:
    """What a team works on: the user's words alone, or the conversation as text, with calls and their results."""
    texts = [(str(message["role"]), _words(message)) for message in messages]
    if len(texts) == 1:
        return texts[0][1]
    if len(texts) == 2 and texts[0][0] == "system":
        return "\n\n".join(text for _, text in texts if text)
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in texts)


def _words(message: dict[str, Json]) -> str:
    calls = message.get("tool_calls")
    return f"{message['content']}{json.dumps(calls, ensure_ascii=False) if calls else ''}"
