"""Tasks, programs and results: what a run is given, and what it returns."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from kvorum.engine.budget import Budget, Ledger
from kvorum.engine.text import end_tokens
from kvorum.errors import BadRequest
from kvorum.runs.trace import recorded
from kvorum.sampling.sampling import Sampling

if TYPE_CHECKING:
    from kvorum.engine.engine import EngineCore
    from kvorum.runs.trace import Trace


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
    kinds: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    """Of parameters declared as numbers, text, lists and mappings: which of these they may be."""
    joins: bool = False
    """Whether it takes up new workers while it runs."""

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises BadRequest for a parameter that the program does not have, or of another kind than it takes."""
        for name, value in params.items():
            if name not in self.params:
                raise BadRequest(f"{self.name} has no parameter {name}; it has: {', '.join(self.params) or 'none'}.")
            if name in self.kinds and not _is_one(value, self.kinds[name]):
                wanted = " or ".join(words for kind, words in _KINDS.items() if kind in self.kinds[name])
                raise BadRequest(f"{self.name}: {name}={value!r} must be {wanted}.")

    def check_private(self, task: Task, names: Sequence[str]) -> None:
        """Nobody's private part may get lost. Raises BadRequest."""
        if task.private and not self.private:
            raise BadRequest(f"{self.name} cannot tell workers private parts; solo, vote, hogwild and relay can.")
        if strangers := [name for name in task.private if name not in names]:
            raise BadRequest(f"The task has a private part for {strangers[0]}; the workers are: {', '.join(names)}.")


_KINDS = {
    "int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "text (in UTF-8)",
    "Sequence": "a list", "Mapping": "a mapping", "None": "none",
}  # fmt: skip


def _is_one(value: Any, kinds: frozenset[str]) -> bool:
    if value is None or isinstance(value, bool):
        return ("None" if value is None else "bool") in kinds
    if isinstance(value, float):
        return "float" in kinds and math.isfinite(value)
    if isinstance(value, int):
        return bool({"int", "float"} & kinds)
    if isinstance(value, str):
        return "str" in kinds and _is_text(value)
    found = {"Mapping": Mapping, "Sequence": list | tuple}
    return any(kind in kinds and isinstance(value, one) for kind, one in found.items())


def _is_text(words: str) -> bool:
    """Whether a trace can hold it: no lone surrogates, which bytes of a command line can become."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


def kinds_of(hint: str) -> frozenset[str] | None:
    """What an annotation such as ``int | Sequence[int] | None`` allows; None if it allows more than these."""
    while (bare := re.sub(r"\[[^\[\]]*\]", "", hint)) != hint:
        hint = bare
    parts = frozenset({"dict": "Mapping", "list": "Sequence"}.get(part, part) for part in hint.split(" | "))
    return parts if parts <= _KINDS.keys() else None


def _kinds(function: Callable[..., Any]) -> dict[str, frozenset[str]]:
    hints = inspect.get_annotations(function).items()
    told = {name: kinds_of(hint if isinstance(hint, str) else inspect.formatannotation(hint)) for name, hint in hints}
    return {name: kinds for name, kinds in told.items() if kinds is not None}


def program(
    name: str, summary: str, *, workers: int = 1, private: bool = False, joins: bool = False
) -> Callable[[Callable[..., Awaitable[str | None]]], Program]:
    """Turn ``async def f(run, *, ...)`` into a Program whose parameters and defaults are f's keywords."""

    def wrap(function: Callable[..., Awaitable[str | None]]) -> Program:
        keywords = list(inspect.signature(function).parameters.values())[1:]
        params = {p.name: p.default for p in keywords}
        return Program(name, summary, function, params, workers, private, _kinds(function), joins)

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


def checked(program: Any, task: Any, budget: Any, sampling: Any, seed: Any) -> Task:
    """The task. Raises BadRequest where a run is given something else than it takes, or an empty problem."""
    task = Task(task) if isinstance(task, str) else task
    for what, given, kind in (
        ("program", program, Program), ("task", task, Task), ("budget", budget or Budget(), Budget),
        ("sampling", sampling or Sampling(), Sampling), ("seed", seed or 0, int),
    ):  # fmt: skip
        if not isinstance(given, kind):
            raise BadRequest(f"A run's {what} must be a {kind.__name__}, not {given!r}.")
    assert isinstance(task, Task)
    if not isinstance(task.prompt, str) or not task.prompt.strip():
        raise BadRequest("The problem is empty; say what to solve.")
    for words in (task.prompt, *task.private.values()):
        if not _is_text(words):
            raise BadRequest(f"The problem holds {words[:80]!r}, which cannot be written as UTF-8.")
    return task


def described(
    engine: EngineCore,
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
