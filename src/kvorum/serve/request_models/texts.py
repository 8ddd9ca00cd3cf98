"""Bodies of requests that turn text into tokens and back, as llama-server's and vLLM's clients send them."""

from __future__ import annotations

from pydantic import Field, StrictBool, StrictInt

from kvorum.serve.request_models.base import StrictRequest, Words
from kvorum.serve.request_models.messages import Message
from kvorum.serve.request_models.tools import ToolForm


class TokenizeForm(StrictRequest):
    """One of ``content`` (llama-server), ``prompt`` and ``messages`` (vLLM), and whether tokens that stand before any
    text are added: by themselves with ``prompt``, not with ``content``."""

    model: str | None = Field(None, max_length=300)
    content: Words | None = None
    prompt: Words | None = None
    messages: list[Message] | None = Field(None, min_length=1, max_length=2048)
    tools: list[ToolForm] | None = Field(None, max_length=256)
    add_special: StrictBool | None = None
    add_special_tokens: StrictBool | None = None
    with_pieces: StrictBool = False
    return_token_strs: StrictBool = False


class DetokenizeForm(StrictRequest):
    """Token ids."""

    model: str | None = Field(None, max_length=300)
    tokens: list[StrictInt] = Field(max_length=2**20)
