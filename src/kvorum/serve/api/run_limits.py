"""What a run may ask of this server: workers, parameters and a budget within its limits, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from kvorum.engine.budget import Budget
from kvorum.errors import BadRequest, UnknownName
from kvorum.runs.parameters import RemoteLimits
from kvorum.runs.program import Program
from kvorum.runs.worker import choose_names
from kvorum.serve.errors import ApiError, as_api_error
from kvorum.serve.request_models import BudgetForm
from kvorum.serve.settings import Limits

_TICKS = 512
"""Of a budget that says nothing."""


def check_workers(workers: int | list[str], limits: Limits, program: Program | None = None) -> list[str]:
    """The workers' names. Raises ApiError for too many, also for ``program``, or names that cannot be."""
    count = workers if isinstance(workers, int) else len(workers)
    if count > limits.workers:
        message = f"{count} workers are more than the {limits.workers} that this server takes."
        raise ApiError(400, message, param="workers")
    if isinstance(workers, list) and any(len(name) > 40 or not name.isprintable() for name in workers):
        raise ApiError(400, "Workers' names have at most 40 characters and no line breaks.", param="workers")
    try:
        if program is not None:
            program.check_workers(count)
        return choose_names(workers, limits.workers)
    except BadRequest as error:
        raise as_api_error(error, "workers") from error


def check_params(program: Program, params: Mapping[str, JsonValue], limits: Limits) -> dict[str, JsonValue]:
    """A program's parameters by its own declaration, and those of programs inside it by theirs.

    Raises:
        ApiError: no such parameter or choice, another kind, too large, or not offered to the network.
    """
    try:
        program.check(params, remote=RemoteLimits(workers=limits.workers))
    except (BadRequest, UnknownName) as error:
        place = "params" if error.param is None else f"params.{error.param[:80]}"
        raise ApiError(400, str(error), param=place) from error
    return dict(params)


def check_budget(form: BudgetForm | None, limits: Limits) -> Budget:
    """A budget within the server's limits; without ticks it has as many as a run may have at most, by default 512.

    Raises:
        ApiError: it asks for more ticks.
    """
    given = Budget() if form is None else Budget(**form.model_dump())
    usual = min(_TICKS, limits.ticks) if given == Budget() else limits.ticks
    ticks = usual if given.ticks is None else given.ticks
    if ticks > limits.ticks:
        message = f"{ticks} ticks are more than the {limits.ticks} that this server takes."
        raise ApiError(400, message, param="budget.ticks")
    return replace(given, ticks=ticks)
