"""What determines a run, as the store of runs holds it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, JsonValue, PlainSerializer

from kvorum.engine.budget import Budget
from kvorum.sampling.sampling import Sampling


def limits_of(budget: Budget) -> dict[str, int | float]:
    """A budget's limits, those that are set."""
    given = {name: getattr(budget, name) for name in Budget.__dataclass_fields__}
    return {name: limit for name, limit in given.items() if limit is not None}


def _chosen(sampling: Sampling) -> dict[str, int | float]:
    return {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p")}


class RunSpec(BaseModel):
    """A run's program with everything that decides its tokens. ``reseed``: (tick, seed) pairs, from a fork on."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str
    program: str
    problem: str
    workers: list[str]
    params: dict[str, JsonValue]
    budget: Annotated[Budget, PlainSerializer(limits_of)]
    sampling: Annotated[Sampling, PlainSerializer(_chosen)]
    seed: int
    reseed: list[tuple[int, int]] = []
