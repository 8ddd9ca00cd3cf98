"""Replies of ``/v1/responses``: the objects of OpenAI's reference."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from kvorum.serve.reply_models.base import ListReply, ReplyModel


class ResponseReply(ReplyModel):
    """A response; streamed, the events of its making as server-sent events."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[dict[str, JsonValue]]
    usage: dict[str, JsonValue] | None
    error: dict[str, JsonValue] | None
    previous_response_id: str | None


class ItemList(ListReply):
    """Items that a response answers."""

    data: list[dict[str, JsonValue]]
    first_id: str
    last_id: str
    has_more: bool


class ResponseDeleted(ReplyModel):
    """A response has been forgotten."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputTokens(ReplyModel):
    """How many tokens a response's prompt has."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
