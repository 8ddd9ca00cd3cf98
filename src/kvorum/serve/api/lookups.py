"""What a request names, looked up: the service and the client behind it, a stored run, a program, a model.

A model's name is ``NAME`` for plain decoding or ``NAME:PROGRAM-N`` for a program with N workers. It chooses among what
the server was started with and never loads anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from kvorum.errors import UnknownName
from kvorum.programs import DEFAULT, REGISTRY, find
from kvorum.runs.program import Program
from kvorum.serve.errors import ApiError, missing
from kvorum.serve.reply_models import ModelKind, ModelReply
from kvorum.serve.service import Service
from kvorum.store.runs import Record


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _client(request: Request) -> str:
    return request.client.host if request.client else ""


ServiceDep = Annotated[Service, Depends(_service)]
Client = Annotated[str, Depends(_client)]
"""The address whose turn it is; with the user that a request names it stands for one client."""


async def find_run(service: Service, run: str) -> Record:
    """The run of that id. Raises ApiError 404; StoreError."""
    record = await asyncio.to_thread(service.store.get, run)
    if record is None:
        raise missing(f"There is no run {run!r}.")
    return record


async def _stored_run(service: ServiceDep, run: Annotated[str, Path(max_length=80)]) -> Record:
    return await find_run(service, run)


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
        return ModelReply(id=name, created=int(service.started), kvorum=kind)


def find_model(service: Service, name: str) -> NamedModel:
    """Read ``NAME`` or ``NAME:PROGRAM-N``. Raises ApiError 404: this server has no such model or program."""
    if name == service.name:
        return NamedModel()
    model, _, rest = name.rpartition(":")
    if model != service.name:
        there = f"there is {service.name}, with programs as in {service.name}:{DEFAULT}-4."
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
