"""The body of a chat completion: a conversation, and how the next message is to be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, StrictInt

from kvorum.serve.request_models.base import StrictRequest
from kvorum.serve.request_models.completions import CompletionBase
from kvorum.serve.request_models.messages import Message
from kvorum.serve.request_models.tools import ToolsForm


class TemplateForm(StrictRequest):
    """What a chat template with a switch for thinking is told, under either of its names."""

    enable_thinking: StrictBool | None = None
    thinking: StrictBool | None = None


class ChatForm(CompletionBase, ToolsForm):
    """The body of ``POST /v1/chat/completions``. ``truncation`` auto: the oldest turns go where not all fit."""

    messages: list[Message] = Field(min_length=1, max_length=2048)
    max_completion_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = Field(None, ge=0, le=20)
    chat_template_kwargs: TemplateForm | None = None
    truncation: Literal["auto", "disabled"] = "disabled"

    @property
    def thinking(self) -> bool | None:
        """Whether the model is to think first; None: as its chat template has it."""
        asked = self.chat_template_kwargs or TemplateForm()
        return asked.thinking if asked.enable_thinking is None else asked.enable_thinking
