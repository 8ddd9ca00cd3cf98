"""Replies and their schemas: the OpenAI objects, and those of runs, blocks and models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Reply(BaseModel):
    """A reply."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ErrorBody(Reply):
    """What went wrong, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Reply):
    """Any reply with a status of 400 and more."""

    error: ErrorBody


class LedgerReply(Reply):
    """What was spent: tokens, ticks, bytes of keys and values, seconds in forward passes."""

    prefill: int
    decoded: int
    latent: int
    ticks: int
    kv_read: int
    kv_written: int
    seconds: float


class UsageReply(Reply):
    """Tokens of a request. ``kvorum`` is the ledger."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    kvorum: LedgerReply | None = None


class ChatMessage(Reply):
    """The model's message. ``reasoning_content``: what a program's workers wrote, line by line."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | None = None


class ChatChoice(Reply):
    """One reply."""

    index: int
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: dict[str, Any] | None = None


class ChatReply(Reply):
    """A chat completion; streamed, its pieces are ``chat.completion.chunk`` objects as server-sent events."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageReply


class TextChoice(Reply):
    """One reply."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: dict[str, Any] | None = None


class CompletionReply(Reply):
    """A completion; streamed, its pieces are of the same kind, as server-sent events."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageReply


class ModelKind(Reply):
    """How a model name decodes; ``program`` None is plain decoding."""

    program: str | None
    workers: int


class ModelReply(Reply):
    """A model name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kvorum: ModelKind


class ModelList(Reply):
    """All model names."""

    object: Literal["list"]
    data: list[ModelReply]


class ParamReply(Reply):
    """A program's parameter; ``choices`` are the words that it may be, where it is chosen among words."""

    name: str
    default: Any
    type: str
    choices: list[str] | None


class ProgramReply(Reply):
    """A program."""

    name: str
    summary: str
    workers: int
    params: list[ParamReply]


class ProgramList(Reply):
    """All programs."""

    object: Literal["list"]
    data: list[ProgramReply]


class RunError(Reply):
    """Why a run failed or is held."""

    message: str
    type: str


class ParentReply(Reply):
    """Where a run was forked from."""

    run: str
    tick: int


class RunReply(Reply):
    """A run."""

    id: str
    object: Literal["run"]
    created: int
    model: str
    program: str
    problem: str
    workers: list[str]
    params: dict[str, Any]
    budget: dict[str, int | float]
    sampling: dict[str, int | float]
    seed: int
    status: Literal["queued", "running", "paused", "finished", "stopped", "failed"]
    ticks: int
    events: int
    ledger: LedgerReply | None
    outcome: Literal["answered", "forced", "none"] | None
    answer: str | None
    spent: str | None
    error: RunError | None
    parent: ParentReply | None


class RunList(Reply):
    """Runs, the newest first."""

    object: Literal["list"]
    data: list[RunReply]
    has_more: bool


class Deleted(Reply):
    """It is gone."""

    id: str
    deleted: bool


class Accepted(Reply):
    """It will be taken up before the next tick."""

    accepted: bool


class BlockReply(Reply):
    """A block. ``tokens`` is None where it has not been read from the store yet."""

    id: str
    object: Literal["block"]
    created: int
    name: str
    tokens: int | None
    sealed: bool
    pages: int
    saved: bool
    ids: list[int] | None = None
    text: str | None = None


class BlockList(Reply):
    """Blocks, the newest first."""

    object: Literal["list"]
    data: list[BlockReply]


class HealthReply(Reply):
    """How the server is."""

    status: Literal["ok", "degraded"]
    model: str
    version: str
    uptime: float
    trouble: str | None
    limits: dict[str, int]
    pages: dict[str, int]
    runs: dict[str, int]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's description says of its errors; those that every route may have are added."""
    return {status: {"model": ErrorReply} for status in sorted({*statuses, 400, 401, 403, 421, 500, 503})}
