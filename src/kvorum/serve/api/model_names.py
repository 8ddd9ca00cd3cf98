"""Model names: ``NAME`` is plain decoding, ``NAME:PROGRAM-N`` a program with N workers.

A name chooses among what the server was started with; it never loads anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvorum.programs import DEFAULT
from kvorum.runs.program import Program
from kvorum.serve.errors import ApiError
from kvorum.serve.reply_models import ModelKind, ModelReply
from kvorum.serve.service import Service
from kvorum.wording import unknown


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


def read_model_name(service: Service, name: str) -> NamedModel:
    """Read ``NAME`` or ``NAME:PROGRAM-N``.

    Raises:
        ApiError: 404, this server has no such model or program; 400, too many workers.
    """
    if name == service.name:
        return NamedModel()
    model, _, rest = name.rpartition(":")
    if model != service.name:
        there = f"there is {service.name}, with programs as in {service.name}:{DEFAULT}-4."
        raise _no_model(f"There is no model {name[:80]!r} here; {there}")
    word, dash, number = rest.rpartition("-")
    if not dash:
        word, number = rest, ""
    if word not in service.programs or (number and not (number.isascii() and number.isdigit() and len(number) < 4)):
        there = f"there are: {', '.join(service.programs)}, with -N for N workers."
        raise _no_model(f"There is no program {rest[:80]!r}; {there}")
    program = service.programs[word]
    return NamedModel(program, int(number) if number else program.default_workers)


def model_names(service: Service) -> list[NamedModel]:
    """What this server offers by name: the model, and each program with its usual number of workers."""
    most = service.settings.limits.workers
    programs = service.programs.values()
    return [NamedModel(), *(NamedModel(program, min(program.default_workers, most)) for program in programs)]


def find_program(service: Service, name: str) -> Program:
    """The program of that name. Raises ApiError 404."""
    if name not in service.programs:
        message = unknown("program", name, service.programs)
        raise ApiError(404, message, code="program_not_found", param="program")
    return service.programs[name]


def _no_model(message: str) -> ApiError:
    return ApiError(404, message, code="model_not_found", param="model")
