"""Programs that are not kvorum's: from a file of one's own, from any module, or brought by an installed package.

What goes wrong in them is told as their author needs it: file, line and statement, without the frames of kvorum. Files
and modules are named by whoever runs the program or starts the server, never by a request from the network.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

from kvorum.errors import KvorumError, ProgramError
from kvorum.harness.own_modules import own_module
from kvorum.own_program_names import GROUP
from kvorum.runs.parameters import Value
from kvorum.runs.program import Program
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent
from kvorum.wording import explain, unknown


def load(where: str) -> Program:
    """The program at ``file.py:name`` or ``package.module:name``; ``file.py`` alone if it has only one.

    Raises:
        ProgramError: there is no such file, module or program, or it fails as it is imported.
    """
    place, _, name = (where, "", "") if where.endswith(".py") else where.rpartition(":")
    module = own_module(place)
    there = {key: value for key, value in vars(module).items() if isinstance(value, Program)}
    if not name and len(there) == 1:
        name = next(iter(there))
    if name in there:
        home = Path(place).resolve() if place.endswith(".py") else place
        return _explained(replace(there[name], where=f"{home}:{name}"))
    if callable(getattr(module, name, None)):
        raise ProgramError(f"{name} in {place} is no program yet: write @program(name, summary) above it.")
    if not name:
        raise ProgramError(f"{place} has {len(there)} programs; say which, as in {place}:{next(iter(there), 'name')}.")
    raise ProgramError(unknown("program", name, there, owner=place))


def installed(taken: Container[str]) -> dict[str, Program]:
    """The programs that installed packages bring, by name. One that fails or whose name is taken is left out with a
    warning."""
    found: dict[str, Program] = {}
    for entry in entry_points(group=GROUP):
        try:
            program = load(f"{entry.module}:{entry.attr}")
        except ProgramError as error:
            warnings.warn(f"The program {entry.name} of an installed package is left out: {error}", stacklevel=2)
            continue
        if program.name in taken or program.name in found:
            warnings.warn(f"{entry.value} is left out: there is a program {program.name} already.", stacklevel=2)
            continue
        found[program.name] = program
    return found


def _explained(program: Program) -> Program:
    """The program, whose own errors come as ProgramError; kvorum's get a note that says where they were caused."""

    @contextmanager
    def explained() -> Iterator[None]:
        try:
            yield
        except Spent:
            raise
        except KvorumError as error:
            error.add_note(explain(error))
            raise
        except Exception as error:
            raise ProgramError(f"{program.name} failed.\n{explain(error)}") from error

    @functools.wraps(program.function)
    async def run_it(run: Run, **params: Value) -> str | None:
        with explained():
            return await program.function(run, **params)

    explaining = None if program.together is None else explained()(program.together)
    return replace(program, function=run_it, together=explaining)
