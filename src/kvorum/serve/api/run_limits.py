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
from kvorum.sampling.sampling import Sampling
from kvorum.serve.errors import ApiError, as_api_error
from kvorum.serve.reply_models import RunSpec
from kvorum.serve.request_models import BudgetForm
from kvorum.serve.service import Service
from kvorum.serve.settings import Limits

_TICKS = 512
"""Of a budget that says nothing."""


def checked_spec(
    service: Service,
    program: Program,
    problem: str,
    *,
    workers: int | list[str],
    params: Mapping[str, JsonValue],
    budget: BudgetForm | None,
    sampling: Sampling,
    seed: int,
    place: str,
) -> RunSpec:
    """A new run within the server's limits; parameters are checked by the declarations of the programs they are for.

    Raises:
        ApiError: more than the server takes; no such parameter or choice, another kind, or not offered to the network;
            no problem, whose ``place`` in the request is named.
    """
    limits = service.settings.limits
    if not problem.strip():
        raise ApiError(400, "The problem is empty; say what to solve.", param=place)
    service.check_length(problem)
    names = check_workers(workers, limits, program)
    try:
        program.check(params, remote=RemoteLimits(workers=limits.workers))
    except (BadRequest, UnknownName) as error:
        place = "params" if error.param is None else f"params.{error.param[:80]}"
        raise ApiError(400, str(error), param=place) from error
    return RunSpec(
        model=service.name,
        program=program.name,
        problem=problem,
        workers=names,
        params=dict(params),
        budget=check_budget(budget, limits),
        sampling=sampling,
        seed=seed,
    )


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
