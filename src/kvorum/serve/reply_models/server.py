"""Replies that say what the server is and has: models, programs, health."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from kvorum.serve.reply_models.base import ListReply, ReplyModel


class ModelKind(ReplyModel):
    """How a model name decodes; ``program`` None is plain decoding."""

    program: str | None
    workers: int


class ModelStatus(ReplyModel):
    """Whether a model is loaded, as llama-server's router has it. ``error``: why it could not be, when last tried."""

    value: Literal["loaded", "loading", "unloaded"]
    error: str | None = None


class ModelReply(ReplyModel):
    """What a request may give as its model. Of one that is not loaded it is not known what it can do.

    ``max_model_len``: how many tokens a prompt and its reply may have together (vLLM's name). ``capabilities``: what
    may be asked of it. ``meta``: positions that the model was trained for and ids that it has (llama-server's names).
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "kvorum"
    max_model_len: int | None = None
    capabilities: list[str] = Field(default_factory=list)
    meta: dict[str, int] = Field(default_factory=dict)
    status: ModelStatus
    kvorum: ModelKind


class DecisionModel(ReplyModel):
    """A model as System One's clients list it. ``release_date``: the day on which this server has loaded it."""

    name: str
    description: str
    release_date: str


class ModelList(ListReply):
    """All model names that the server offers by itself. ``models``: those that decisions are asked of."""

    data: list[ModelReply]
    models: list[DecisionModel]


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


class HealthReply(ReplyModel):
    """Whether the server works, what it holds and what it takes. ``model``: the first of ``models``, each with its
    status; ``pages`` are those of all that are loaded."""

    status: Literal["ok", "degraded"]
    model: str
    models: dict[str, str]
    version: str
    uptime: float
    trouble: str | None
    limits: dict[str, int | float]
    pages: dict[str, int]
    store: dict[str, int]
    runs: dict[str, int]
