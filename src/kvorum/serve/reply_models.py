"""Replies and their schemas: the OpenAI objects, and those of runs, blocks and models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue


class Reply(BaseModel):
    """A reply; it may have more fields than are described."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ListReply(Reply):
    """A list of things, under ``data``, as OpenAI's API has them."""

    object: Literal["list"] = "list"


class Completion(Reply):
    """What both kinds of completions say of themselves."""

    id: str
    created: int
    model: str


class ErrorBody(Reply):
    """What went wrong, and what to do about it."""

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


class Choice(Reply):
    """One of ``n`` replies to a prompt."""

    index: int
    finish_reason: Literal["stop", "length"]
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


class ModelKind(Reply):
    """How a model name decodes; ``program`` None is plain decoding."""

    program: str | None
    workers: int


class ModelReply(Reply):
    """What a request may give as its model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "kvorum"
    kvorum: ModelKind


class ModelList(ListReply):
    """All model names that the server offers by itself."""

    data: list[ModelReply]


class ParamReply(Reply):
    """A program's parameter as the program declares it; ``choices``: the words that it may be, if it is one of some."""

    name: str
    kind: str
    default: JsonValue
    help: str
    choices: list[str] | None
    low: float | None
    high: float | None
    optional: bool
    items: str | None


class ProgramReply(Reply):
    """A way for a team to work; ``workers`` is how many there are if nobody says."""

    name: str
    summary: str
    workers: int
    least_workers: int
    most_workers: int
    joins: bool
    listens: bool
    turns: bool
    params: list[ParamReply]


class ProgramList(ListReply):
    """All programs; ``default`` is taken where a run names none."""

    default: str
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
    """A run: what was asked for, and how far it is."""

    id: str
    object: Literal["run"] = "run"
    created: int
    model: str
    program: str
    problem: str
    workers: list[str]
    params: dict[str, JsonValue]
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


class RunList(ListReply):
    """Runs, the newest first; ``has_more``: there are older ones."""

    data: list[RunReply]
    has_more: bool


class Deleted(Reply):
    """A run or block has been forgotten."""

    id: str
    deleted: bool = True


class Accepted(Reply):
    """A command will be taken up before the next tick."""

    accepted: bool = True


class BlockReply(Reply):
    """A block. ``tokens`` is None where it has not been read from the store yet."""

    id: str
    object: Literal["block"] = "block"
    created: int
    name: str
    tokens: int | None
    sealed: bool
    pages: int
    saved: bool
    ids: list[int] | None = None
    text: str | None = None


class BlockList(ListReply):
    """All blocks of all clients, the newest first."""

    data: list[BlockReply]


class HealthReply(Reply):
    """Whether the server works, what it holds and what it takes."""

    status: Literal["ok", "degraded"]
    model: str
    version: str
    uptime: float
    trouble: str | None
    limits: dict[str, int]
    pages: dict[str, int]
    runs: dict[str, int]


def errors(*statuses: int) -> dict[int | str, dict[str, type[Reply]]]:
    """What a route's description says of its errors; those that every route may have are added."""
    return {status: {"model": ErrorReply} for status in sorted({*statuses, 400, 401, 403, 421, 500, 503})}
