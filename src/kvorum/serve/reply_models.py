"""Replies and their schemas: the OpenAI objects, and those of runs, blocks and models."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue, PlainSerializer

from kvorum.engine.budget import Budget, Ledger
from kvorum.jsontypes import JsonObject
from kvorum.sampling.sampling import Sampling

_Description: TypeAlias = "dict[str, type[ReplyModel] | JsonObject | str]"
_RETRY: JsonObject = {"Retry-After": {"description": "Seconds after which to try again", "schema": {"type": "integer"}}}


class ReplyModel(BaseModel):
    """A reply; it may have more fields than are described."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ListReply(ReplyModel):
    """A list of things, under ``data``, as OpenAI's API has them."""

    object: Literal["list"] = "list"


class Completion(ReplyModel):
    """What both kinds of completions say of themselves."""

    id: str
    created: int
    model: str


class ErrorBody(ReplyModel):
    """What went wrong, and what to do about it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(ReplyModel):
    """Any reply with a status of 400 and more."""

    error: ErrorBody


class UsageReply(ReplyModel):
    """Tokens of a request. ``kvorum`` is the ledger."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    kvorum: Ledger | None = None


class ChatMessage(ReplyModel):
    """The model's message. ``reasoning_content``: what a program's workers wrote, line by line."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | None = None


class Choice(ReplyModel):
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


class ModelKind(ReplyModel):
    """How a model name decodes; ``program`` None is plain decoding."""

    program: str | None
    workers: int


class ModelReply(ReplyModel):
    """What a request may give as its model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "kvorum"
    kvorum: ModelKind


class ModelList(ListReply):
    """All model names that the server offers by itself."""

    data: list[ModelReply]


class ParamReply(ReplyModel):
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


class ProgramReply(ReplyModel):
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


def _chosen(sampling: Sampling) -> JsonObject:
    """What decides tokens: the filters, and whatever else is not as it is by itself."""
    plain, chosen = Sampling().as_data(), sampling.as_data()
    always = ("temperature", "top_p", "top_k", "min_p")
    return {name: value for name, value in chosen.items() if name in always or value != plain[name]}


class RunSpec(BaseModel):
    """What determines a run's tokens, as the store holds it. ``reseed``: (tick, seed) pairs, from a fork on."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str
    program: str
    problem: str
    workers: list[str]
    params: dict[str, JsonValue]
    budget: Annotated[Budget, PlainSerializer(Budget.as_dict, return_type=dict[str, int | float])]
    sampling: Annotated[Sampling, PlainSerializer(_chosen, return_type=dict[str, JsonValue])]
    seed: int
    reseed: list[tuple[int, int]] = []
    thinking: bool | None = None


class RunErrorReply(ReplyModel):
    """Why a run failed or is held."""

    message: str
    type: str


class ParentReply(ReplyModel):
    """Where a run was forked from."""

    run: str
    tick: int


class RunReply(RunSpec):
    """A run: what was asked for, and how far it is."""

    id: str
    object: Literal["run"] = "run"
    created: int
    status: Literal["queued", "running", "paused", "finished", "stopped", "failed"]
    ticks: int
    events: int
    ledger: Ledger | None
    outcome: Literal["answered", "forced", "cut", "none"] | None
    answer: str | None
    spent: str | None
    error: RunErrorReply | None
    parent: ParentReply | None


class RunList(ListReply):
    """Runs, the newest first; ``has_more``: there are older ones."""

    data: list[RunReply]
    has_more: bool


class Deleted(ReplyModel):
    """A run or block has been forgotten."""

    id: str
    deleted: bool = True


class Accepted(ReplyModel):
    """A command will be taken up before the next tick."""

    accepted: bool = True


class BlockReply(ReplyModel):
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


class HealthReply(ReplyModel):
    """Whether the server works, what it holds and what it takes."""

    status: Literal["ok", "degraded"]
    model: str
    version: str
    uptime: float
    trouble: str | None
    limits: dict[str, int | float]
    pages: dict[str, int]
    runs: dict[str, int]


def errors(*statuses: int) -> dict[int | str, _Description]:
    """What a route's description says of its errors; those that every route may have are added.

    One for all others keeps the framework from adding its 422, which is a 400 here.
    """
    known: dict[int | str, _Description] = {}
    for status in sorted({*statuses, 400, 401, 403, 421, 500, 503}):
        known[status] = {"model": ErrorReply}
        if status == 429:
            known[status]["headers"] = _RETRY
    known["default"] = {"model": ErrorReply, "description": "Any other error"}
    return known
