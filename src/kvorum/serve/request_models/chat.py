"""The body of a chat completion: a conversation, and how the next message is to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, StrictBool, StrictInt

from kvorum.serve.request_models.base import StrictRequest
from kvorum.serve.request_models.completions import CompletionBase
from kvorum.serve.request_models.messages import Message
from kvorum.serve.request_models.tools import ToolsForm

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How hard a model is to think, in OpenAI's words."""


class TemplateForm(StrictRequest):
    """What a chat template with a switch for thinking is told, under either of its names."""

    enable_thinking: StrictBool | None = None
    thinking: StrictBool | None = None


class ChatForm(CompletionBase, ToolsForm):
    """The body of ``POST /v1/chat/completions``. ``truncation`` auto: the oldest turns go where not all fit."""

    absent: ClassVar[Mapping[str, str]] = {
        **ToolsForm.absent,
        "audio": "audio is not written here; leave it away.",
        "moderation": "moderation is not there: nothing is judged here.",
        "store": "store is for /v1/responses: chat completions are not kept.",
        "web_search_options": "Nothing is fetched from the web; give what is to be read in the messages, or a tool.",
    }
    messages: list[Message] = Field(min_length=1, max_length=2048)
    max_completion_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = Field(None, ge=0, le=20)
    chat_template_kwargs: TemplateForm | None = None
    reasoning_effort: Effort | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] = "medium"
    truncation: Literal["auto", "disabled"] = "disabled"

    @property
    def thinking(self) -> bool | None:
        """Whether the model is to think first; None: as its chat template has it."""
        asked = self.chat_template_kwargs or TemplateForm()
        if asked.enable_thinking is None and asked.thinking is None:
            return thinks(self.reasoning_effort)
        return asked.thinking if asked.enable_thinking is None else asked.enable_thinking


def thinks(effort: Effort | None) -> bool | None:
    """Whether a model with a switch for thinking is told to: there is no more and less of it."""
    return None if effort is None else effort not in ("none", "minimal")
