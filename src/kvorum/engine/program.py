"""Tasks, programs and results: what a run is given, and what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from kvorum.engine.budget import Budget, Ledger
from kvorum.engine.sampling import Sampling
from kvorum.engine.text import end_tokens
from kvorum.engine.trace import recorded
from kvorum.errors import BadRequest

if TYPE_CHECKING:
    from kvorum.engine.engine import Engine
    from kvorum.engine.trace import Trace


@dataclass(frozen=True, slots=True)
class Task:
    """A problem: its text and, where there is one, a verifier that scores an answer from 0 to 1.

    ``private``: what one worker alone is told, by its name.
    """

    prompt: str
    verify: Callable[[str | None], float] | None = None
    name: str = ""
    private: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Program:
    """A way for a team to work on a task: ``await function(run, **params)`` returns the answer or None."""

    name: str
    summary: str
    function: Callable[..., Awaitable[str | None]]
    params: dict[str, Any]
    default_workers: int = 1
    private: bool = False
    """Whether it tells workers their private parts of a task."""

    def check_private(self, task: Task, names: Sequence[str]) -> None:
        """Nobody's private part may get lost. Raises BadRequest."""
        if task.private and not self.private:
            raise BadRequest(f"{self.name} cannot tell workers private parts; solo, vote, hogwild and relay can.")
        if strangers := [name for name in task.private if name not in names]:
            raise BadRequest(f"The task has a private part for {strangers[0]}; the workers are: {', '.join(names)}.")


def program(
    name: str, summary: str, *, workers: int = 1, private: bool = False
) -> Callable[[Callable[..., Awaitable[str | None]]], Program]:
    """Turn ``async def f(run, *, ...)`` into a Program whose parameters and defaults are f's keywords."""

    def wrap(function: Callable[..., Awaitable[str | None]]) -> Program:
        keywords = list(inspect.signature(function).parameters.values())[1:]
        return Program(name, summary, function, {p.name: p.default for p in keywords}, workers, private)

    return wrap


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What one worker wrote: its token ids as picked, and their text."""

    name: str
    ids: list[int]
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """How a run ended. ``outcome`` is "answered", "forced" (an answer at the budget) or "none".

    ``spent`` names the limit that ended it, if one did; ``score`` is the verifier's, if the task has one; ``seconds``
    the wall time; ``differences`` where a replayed run did not repeat its trace.
    """

    answer: str | None
    outcome: str
    spent: str | None
    workers: list[WorkerResult]
    ledger: Ledger
    trace: Trace
    seconds: float
    score: float | None = None
    differences: list[str] = field(default_factory=list)


def described(
    engine: Engine,
    program: Program,
    task: Task,
    names: Sequence[str],
    budget: Budget,
    sampling: Sampling,
    seed: int,
    params: dict[str, Any],
) -> dict[str, Any]:
    """Everything that determines a run, as its trace begins with it."""
    return {
        "program": program.name,
        "params": {name: recorded(value) for name, value in params.items()},
        "task": {"prompt": task.prompt, "name": task.name} | ({"private": dict(task.private)} if task.private else {}),
        "workers": list(names),
        "budget": {key: value for key, value in asdict(budget).items() if value is not None},
        "sampling": asdict(sampling),
        "seed": seed,
        "model": engine.about(),
        "ends": sorted(end_tokens(engine.model, engine.tokenizer)),
        "versions": {
            "kvorum": version("kvorum"),
            "torch": torch.__version__,
            "transformers": version("transformers"),
        },
    }
