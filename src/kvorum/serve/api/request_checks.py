"""What a request asks for, looked up and held against the server's limits before anything is done.

A model's name is ``NAME`` for plain decoding or ``NAME:PROGRAM-N`` for a program with N workers. It chooses among what
the server was started with and never loads anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Path, Request

from kvorum.engine.budget import Budget
from kvorum.errors import BadRequest, UnknownName
from kvorum.programs import REGISTRY, find
from kvorum.runs.parameters import RemoteLimits
from kvorum.runs.program import Program
from kvorum.runs.worker import choose_names
from kvorum.sampling.sampling import Sampling
from kvorum.serve.errors import ApiError, as_api_error, missing, within
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.runs import RunSpec
from kvorum.serve.reply_models.server import ModelKind, ModelReply
from kvorum.serve.request_guard import CALLER
from kvorum.serve.request_models.completions import Extra
from kvorum.serve.request_models.runs import BudgetForm, RunForm
from kvorum.serve.service import Service
from kvorum.serve.settings import Limits
from kvorum.store.runs import Record

_TICKS = 512
"""Of a budget that says nothing."""


async def _server(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServerDep = Annotated[Service, Depends(_server)]
"""The server, for what does not ask a model."""


async def _caller(request: Request) -> Caller:
    caller: Caller = request.scope[CALLER]
    return caller


Client = Annotated[Caller, Depends(_caller)]
"""Whose turn it is and whose is what the request makes: the key and the address; with the user that a request names
these stand for one client."""


async def _service(service: ServerDep, caller: Client) -> Service:
    caller.check_model(service.name)
    return service


ServiceDep = Annotated[Service, Depends(_service)]
"""What computes, for a caller whose key is for it. Raises ApiError 403."""


async def find_run(service: Service, run: str, caller: Caller) -> Record:
    """The caller's run of that id. Raises ApiError 404; StoreError."""
    record = await asyncio.to_thread(service.store.get, run)
    if record is None or record.owner != caller.owner:
        raise missing(f"There is no run {run!r}.")
    return record


async def _stored_run(service: ServiceDep, caller: Client, run: Annotated[str, Path(max_length=80)]) -> Record:
    return await find_run(service, run, caller)


StoredRun = Annotated[Record, Depends(_stored_run)]
"""The run that the path names."""


def find_program(name: str) -> Program:
    """The program of that name. Raises ApiError 404."""
    try:
        return find(name)
    except UnknownName as error:
        raise ApiError(404, str(error), code="program_not_found", param="program") from error


@dataclass(frozen=True, slots=True)
class NamedModel:
    """What a model name asks for; ``program`` None: plain decoding."""

    program: Program | None = None
    workers: int = 1

    def reply(self, service: Service) -> ModelReply:
        """As ``/v1/models`` shows it, under its full name."""
        program = None if self.program is None else self.program.name
        name = service.name if program is None else f"{service.name}:{program}-{self.workers}"
        kind = ModelKind(program=program, workers=self.workers)
        shape, able = service.engine.shape, ["chat", "completions", "response_format", "tools"]
        if self.program is None:
            able += ["logprobs", "echo", "decisions", "embeddings", *(["infill"] if service.infill is not None else [])]
        return ModelReply(
            id=name,
            created=int(service.started),
            max_model_len=service.context,
            capabilities=able,
            meta={"n_ctx_train": shape.longest or service.context, "n_vocab": shape.vocab},
            kvorum=kind,
        )


def find_model(service: Service, name: str) -> NamedModel:
    """Read ``NAME`` or ``NAME:PROGRAM-N``. Raises ApiError 404: this server has no such model or program."""
    if name == service.name:
        return NamedModel()
    model, _, rest = name.rpartition(":")
    if model != service.name:
        there = f"there is {service.name}, with programs as in {service.name}:PROGRAM-4; /v1/programs lists them."
        raise _no_model(f"There is no model {name[:80]!r} here; {there}")
    word, dash, number = rest.rpartition("-")
    if not dash:
        word, number = rest, ""
    if word not in REGISTRY or (number and not (number.isascii() and number.isdigit() and len(number) < 4)):
        there = f"there are: {', '.join(REGISTRY)}, with -N for N workers."
        raise _no_model(f"There is no program {rest[:80]!r}; {there}")
    return NamedModel(REGISTRY[word], int(number) if number else REGISTRY[word].default_workers)


def _no_model(message: str) -> ApiError:
    return ApiError(404, message, code="model_not_found", param="model")


async def checked_spec(
    service: Service,
    program: Program,
    problem: str,
    workers: int | list[str],
    asked: Extra | RunForm,
    *,
    sampling: Sampling,
    seed: int,
    thinking: bool | None = None,
    place: str,
) -> RunSpec:
    """A new run within the server's limits; parameters are checked by the declarations of the programs they are for.

    Raises:
        ApiError: more than the server takes; no such parameter or choice, another kind, or not offered to the network,
            or they cannot be together; no problem, whose ``place`` in the request is named.
    """
    limits = service.settings.limits
    if not problem.strip():
        raise ApiError(400, "The problem is empty; say what to solve.", param=place)
    await service.encode(problem)  # which refuses what is too long
    names = check_workers(workers, limits, program)
    try:
        program.check(asked.params, workers=len(names), remote=RemoteLimits(workers=limits.workers))
    except (BadRequest, UnknownName) as error:
        place = "params" if error.param is None else f"params.{error.param[:80]}"
        raise ApiError(400, str(error), param=place) from error
    return RunSpec(
        model=service.name,
        program=program.name,
        problem=problem,
        workers=names,
        params=asked.params,
        budget=check_budget(asked.budget, limits),
        sampling=sampling,
        seed=seed,
        thinking=thinking,
    )


def check_workers(workers: int | list[str], limits: Limits, program: Program | None = None) -> list[str]:
    """The workers' names. Raises ApiError for too many, also for ``program``, or names that cannot be."""
    count = workers if isinstance(workers, int) else len(workers)
    within(count, limits.workers, "workers", "workers")
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
    within(ticks, limits.ticks, "ticks", "budget.ticks")
    return replace(given, ticks=ticks)
