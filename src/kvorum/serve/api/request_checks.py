"""What a request asks for, looked up and held against the server's limits before anything is done.

A model's name is ``NAME`` for plain decoding or ``NAME:PROGRAM-N`` for a program with N workers. It chooses among what
the server was started with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
from kvorum.serve.loaded_models import Held, LoadedModels
from kvorum.serve.reply_models.runs import RunSpec
from kvorum.serve.reply_models.server import ModelKind, ModelReply, ModelStatus
from kvorum.serve.request_guard import CALLER, HELD
from kvorum.serve.request_models.completions import Extra
from kvorum.serve.request_models.runs import BudgetForm, RunForm
from kvorum.serve.server import Server
from kvorum.serve.service import Service
from kvorum.serve.settings import Limits
from kvorum.store.runs import Record, Store

_TICKS = 512
"""Of a budget that says nothing."""


async def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


ServerDep = Annotated[Server, Depends(_server)]
"""The server, for what does not ask a model."""


async def _caller(request: Request) -> Caller:
    caller: Caller = request.scope[CALLER]
    return caller


Client = Annotated[Caller, Depends(_caller)]
"""Whose turn it is and whose is what the request makes: the key and the address; with the user that a request names
these stand for one client."""


async def _allowed(server: ServerDep, caller: Client) -> Server:
    if not any(map(caller.may_ask, server.models.sources)):
        caller.check_model(server.models.first)
    return server


AllowedDep = Annotated[Server, Depends(_allowed)]
"""The server, for a caller whose key is for any of its models. Raises ApiError 403."""


async def hold_model(request: Request, caller: Caller, name: str) -> Service:
    """The model of that name, without a program, loaded until the request has been replied to, for a caller whose key
    is for it. Raises ApiError."""
    caller.check_model(name)
    held: Held = request.scope[HELD]
    return await held.hold(name)


async def _service(request: Request, server: ServerDep, caller: Client) -> Service:
    return await hold_model(request, caller, base_model(server.models, await _named_in(request)))


ServiceDep = Annotated[Service, Depends(_service)]
"""The model that the body names, or the first, for a caller whose key is for it. Raises ApiError 403, 404, 429, 503."""


async def _named_in(request: Request) -> str | None:
    """What a body says of its model; its form is checked elsewhere."""
    try:
        body = await request.json()
    except ValueError:
        return None
    named = body.get("model") if isinstance(body, dict) else None
    return named if isinstance(named, str) else None


def base_model(models: LoadedModels, name: str | None) -> str:
    """The model in ``NAME`` or ``NAME:PROGRAM-N``; the first where nothing is named. Raises ApiError 404."""
    if name is None:
        return models.first
    names = models.sources
    base = name if name in names else name.rpartition(":")[0]
    if base not in names:
        there = f"there is {', '.join(names)}, with programs as in {models.first}:PROGRAM-4; /v1/programs lists them."
        raise _no_model(f"There is no model {name[:80]!r} here; {there}")
    return base


async def find_run(store: Store, run: str, caller: Caller) -> Record:
    """The caller's run of that id. Raises ApiError 404; StoreError."""
    record = await asyncio.to_thread(store.get, run)
    if record is None or record.owner != caller.owner:
        raise missing(f"There is no run {run!r}.")
    return record


async def _stored_run(server: AllowedDep, caller: Client, run: Annotated[str, Path(max_length=80)]) -> Record:
    return await find_run(server.shared.store, run, caller)


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

    def reply(self, server: Server, model: str) -> ModelReply:
        """As ``/v1/models`` shows it, under its full name."""
        program = None if self.program is None else self.program.name
        name = model if program is None else f"{model}:{program}-{self.workers}"
        kind = ModelKind(program=program, workers=self.workers)
        status = ModelStatus(value=server.models.status(model), error=server.models.failed.get(model))
        made = ModelReply(id=name, created=int(server.shared.started), kvorum=kind, status=status)
        service = server.models.loaded.get(model)
        if service is None:  # what it can do is known once it has been loaded
            return made
        shape, able = service.engine.shape, ["chat", "completions", "response_format", "tools"]
        if self.program is None:
            more = ["logprobs", "echo", "decisions", "embeddings"]
            able += [*more, *(["infill"] if service.infill is not None else [])]
        meta = {"n_ctx_train": shape.longest or service.context, "n_vocab": shape.vocab}
        return made.model_copy(update={"max_model_len": service.context, "capabilities": able, "meta": meta})


def find_model(service: Service, name: str) -> NamedModel:
    """What ``NAME`` or ``NAME:PROGRAM-N`` asks of the model ``service``. Raises ApiError 404: there is no such
    program."""
    return named_model(service.name, name)


def named_model(base: str, name: str) -> NamedModel:
    """The same of the model called ``base``."""
    if name == base:
        return NamedModel()
    rest = name.rpartition(":")[2]
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
    workers: int | list[str] | None,
    asked: Extra | RunForm,
    *,
    sampling: Sampling,
    seed: int,
    thinking: bool | None = None,
    place: str,
) -> RunSpec:
    """A new run within the server's limits; parameters are checked by the declarations of the programs they are for.

    Where its work names its workers, the program says who they are; ``workers`` None: as many as it has by default.

    Raises:
        ApiError: more than the server takes; no such parameter or choice, another kind, or not offered to the network,
            or they cannot be together; no problem, whose ``place`` in the request is named.
    """
    limits = service.settings.limits
    if not problem.strip():
        raise ApiError(400, "The problem is empty; say what to solve.", param=place)
    await service.encode(problem)  # which refuses what is too long
    remote = RemoteLimits(workers=limits.workers)
    try:
        program.check(asked.params, remote=remote)
        team = program.workers_of(workers, asked.params)
        names = check_workers(team, limits, program)
        program.check(asked.params, workers=len(names), remote=remote)
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


def check_workers(workers: int | Sequence[str], limits: Limits, program: Program | None = None) -> list[str]:
    """The workers' names. Raises ApiError for too many, also for ``program``, or names that cannot be."""
    count = workers if isinstance(workers, int) else len(workers)
    within(count, limits.workers, "workers", "workers")
    if not isinstance(workers, int) and any(len(name) > 40 or not name.isprintable() for name in workers):
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
