"""Replies of chat and of plain completions: the OpenAI objects."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from kvorum.engine.budget import Ledger
from kvorum.serve.reply_models.base import ReplyModel


class Completion(ReplyModel):
    """What both kinds of completions say of themselves."""

    id: str
    created: int
    model: str


class UsageReply(ReplyModel):
    """Tokens of a request. ``kvorum`` is the ledger. ``completion_tokens_details``: of the tokens that were computed
    ahead, ``accepted_prediction_tokens`` came and ``rejected_prediction_tokens`` did not."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    completion_tokens_details: dict[str, int] | None = None
    kvorum: Ledger | None = None


class CalledReply(ReplyModel):
    """What is called; ``arguments`` is JSON text of an object that fits the tool's parameters."""

    name: str
    arguments: str


class CallReply(ReplyModel):
    """A call of a tool, which the client makes; its result comes back in a message of the role ``tool``."""

    id: str
    type: Literal["function"]
    function: CalledReply


class ChatMessage(ReplyModel):
    """The model's message. ``reasoning_content``: its thoughts, or what a program's workers wrote, line by line."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | None = None
    tool_calls: list[CallReply] | None = None


class Choice(ReplyModel):
    """One of ``n`` replies to a prompt."""

    index: int
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: dict[str, JsonValue] | None = None


class ChatChoice(Choice):
    """One of the replies of a chat completion."""

    message: ChatMessage


class ChatReply(Completion):
    """A chat completion; streamed, its pieces are ``chat.completion.chunk`` objects as server-sent events."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: UsageReply


class TextChoice(Choice):
    """One of the replies of a completion; ``text`` begins with the prompt where ``echo`` was asked for."""

    text: str


class CompletionReply(Completion):
    """A completion; streamed, its pieces are of the same kind, as server-sent events."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: UsageReply
