"""Messages of a conversation as requests bring them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from kvorum.serve.request_models.base import RequestModel, Words

Name = Annotated[str, Field(max_length=256)]


class ContentPart(RequestModel):
    """A part of a message's content. Only text is taken; ``refusal`` is what an assistant would not do, in words."""

    type: str
    text: Words | None = None
    refusal: Words | None = None


class CalledFunction(RequestModel):
    """What a call calls; arguments are JSON text, or the object that it spells."""

    name: Name
    arguments: Words | dict[str, JsonValue] | None = None


class CallForm(RequestModel):
    """A call that the assistant has made."""

    id: Name | None = None
    type: str | None = None
    function: CalledFunction


class Message(RequestModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Words | list[ContentPart] | None = None
    tool_calls: list[CallForm] | None = Field(None, max_length=256)
    tool_call_id: Name | None = None
