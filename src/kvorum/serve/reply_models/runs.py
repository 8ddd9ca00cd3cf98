"""Replies that show runs, and what determines one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, PlainSerializer

from kvorum.engine.budget import Budget, Ledger
from kvorum.jsontypes import JsonObject
from kvorum.sampling.sampling import Sampling
from kvorum.serve.reply_models.base import ListReply, ReplyModel


def _chosen(sampling: Sampling) -> JsonObject:
    """What decides tokens: the filters, and whatever else is not as it is by itself."""
    plain, chosen = Sampling().as_data(), sampling.as_data()
    always = ("temperature", "top_p", "top_k", "min_p")
    return {name: value for name, value in chosen.items() if name in always or value != plain[name]}


class RunSpec(BaseModel):
    """What determines a run's tokens, as the store holds it. ``reseed``: (tick, seed) pairs, from a fork on.

    ``attention``: in every so many-th tick its trace tells whose words each worker attends to; it decides no token.
    """

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
    attention: int = 0


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
