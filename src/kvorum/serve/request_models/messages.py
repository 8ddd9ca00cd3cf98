"""Messages of a conversation as requests bring them."""

from __future__ import annotations

from typing import Literal

from kvorum.serve.request_models.base import RequestModel, Words


class ContentPart(RequestModel):
    """A part of a message's content. Only text is taken."""

    type: str
    text: Words | None = None


class Message(RequestModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Words | list[ContentPart] | None = None
