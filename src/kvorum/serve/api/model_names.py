"""Model names, and the programs and parameters that a request may choose.

A name chooses among what the server was started with; it never loads anything. A program's parameters are plain values:
those that reach files or code are not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from kvorum.engine.budget import Budget
from kvorum.errors import BadRequest, UnknownName
from kvorum.programs import REGISTRY
from kvorum.programs import find as find_program
from kvorum.runs.parameters import RemoteLimits
from kvorum.runs.program import Program
from kvorum.runs.worker import choose_names
from kvorum.serve.api.choices import choices, kind
from kvorum.serve.errors import ApiError
from kvorum.serve.settings import Limits

NOT_OFFERED = frozenset({"export", "tools", "script"})
"""Parameters that name a file, hold functions or stand in for the model."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model and, unless it is decoded plainly, a program with the number of its workers."""

    model: str
    program: Program | None
    workers: int


def choose(name: str, served: str, limits: Limits) -> Choice:
    """Read ``NAME`` or ``NAME:program-N``.

    Raises:
        ApiError: 404, this server has no such model or program; 400, too many workers.
    """
    if name == served:
        return Choice(served, None, 1)
    model, _, rest = name.rpartition(":")
    if model != served:
        raise ApiError(
            404, f"There is no model {name[:80]!r} here; there is {served}, with programs as in {served}:hogwild-4.",
            code="model_not_found", param="model",
        )  # fmt: skip
    word, dash, number = rest.rpartition("-")
    if not dash:
        word, number = rest, ""
    if word not in REGISTRY or (number and not (number.isascii() and number.isdigit() and len(number) < 4)):
        raise ApiError(
            404, f"There is no program {rest[:80]!r}; there are: {', '.join(REGISTRY)}, with -N for N workers.",
            code="model_not_found", param="model",
        )  # fmt: skip
    program = REGISTRY[word]
    workers = int(number) if number else program.default_workers
    check_workers(workers, limits)
    return Choice(served, program, workers)


def names(served: str, limits: Limits) -> list[Choice]:
    """What this server offers by name."""
    return [
        Choice(served, None, 1),
        *(Choice(served, program, min(program.default_workers, limits.workers)) for program in REGISTRY.values()),
    ]


def spelled(choice: Choice) -> str:
    """A choice as a model name."""
    return choice.model if choice.program is None else f"{choice.model}:{choice.program.name}-{choice.workers}"


def program_of(name: str) -> Program:
    """The program of that name. Raises ApiError 404."""
    try:
        return find_program(name)
    except LookupError as error:
        raise ApiError(404, str(error), code="program_not_found", param="program") from error


def check_workers(workers: int | list[str], limits: Limits) -> list[str]:
    """The workers' names. Raises ApiError."""
    count = workers if isinstance(workers, int) else len(workers)
    if count > limits.workers:
        raise ApiError(
            400, f"{count} workers are more than the {limits.workers} that this server takes.", param="workers"
        )
    if isinstance(workers, list) and any(len(name) > 40 or not name.isprintable() for name in workers):
        raise ApiError(400, "Workers' names have at most 40 characters and no line breaks.", param="workers")
    try:
        return choose_names(workers, limits.workers)
    except BadRequest as error:
        raise ApiError(400, str(error), param="workers") from error


def check_params(program: Program, params: Mapping[str, Any]) -> dict[str, Any]:
    """A program's parameters as its declaration has them, with the limits of the network. Raises ApiError."""
    try:
        return program.check(params, remote=RemoteLimits())
    except (BadRequest, UnknownName) as error:
        raise ApiError(400, str(error), param=f"params.{error.param}"[:80]) from error


def check_budget(given: Mapping[str, Any] | None, limits: Limits) -> Budget:
    """A budget within the server's limits; without ticks it has as many as a run may have at most, by default 512.

    Raises:
        ApiError: there is no such limit, or it asks for more.
    """
    known = {field.name for field in fields(Budget)}
    wanted = {name: value for name, value in (given or {}).items() if value is not None}
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise ApiError(
            400, f"A budget has no limit {unknown[0][:80]!r}; it has: {', '.join(sorted(known))}.", param="budget"
        )
    ticks = wanted.setdefault("ticks", min(512, limits.ticks) if not wanted else limits.ticks)
    if ticks > limits.ticks:
        raise ApiError(
            400, f"{ticks} ticks are more than the {limits.ticks} that this server takes.", param="budget.ticks"
        )
    try:
        return Budget(**wanted)
    except (BadRequest, TypeError) as error:
        raise ApiError(400, str(error), param="budget") from error


def about_program(program: Program) -> dict[str, Any]:
    """A program for ``/v1/programs``."""
    return {
        "name": program.name,
        "summary": program.summary,
        "workers": program.default_workers,
        "params": [
            {
                "name": name,
                "default": _plain(default),
                "type": kind(program, name),
                "choices": choices(program, name),
            }
            for name, default in program.params.items()
            if name not in NOT_OFFERED
        ],
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def plain_budget(budget: Budget) -> dict[str, Any]:
    """A budget's limits, those that are set."""
    return {name: value for name, value in asdict(budget).items() if value is not None}
