"""Programs that a program's parameters name, at work behind its views: several of them share ticks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvorum.jsontypes import Json
from kvorum.kv import View
from kvorum.runs.program import Program, Task
from kvorum.runs.run import Run
from kvorum.runs.start import inside


@dataclass(frozen=True, slots=True, eq=False)
class InnerPlace:
    """Where an inner program works: ``name`` is what the trace calls it, ``view`` what it sees, ``task`` what it is to
    solve (None: what the run is)."""

    name: str
    view: View
    task: Task | None = None


def asked_for(program: Program, params: Mapping[str, Json] | None, answer: str) -> dict[str, Json]:
    """Its parameters where this kind of answer is wanted of it, if it has kinds and they do not say otherwise."""
    wanted: dict[str, Json] = {"answer": answer} if any(one.name == "answer" for one in program.parameters) else {}
    return wanted | dict(params or {})


async def answers_inside(
    run: Run, program: Program, params: Mapping[str, Json], places: Sequence[InnerPlace], *, together: bool = True
) -> list[str | None]:
    """What ``program`` answers in each place: in all of them in the same ticks, or in one after the other.

    ``params``: the program's own, and perhaps its ``workers``. None where it has no answer, as when the budget ends it.

    Raises:
        BadRequest: parameters that the program does not have; the first error of any place, once all are over.
    """
    given: dict[str, Any] = dict(params)

    async def one(place: InnerPlace) -> str | None:
        return await inside(run, place.view, program, place.task, name=place.name, **given)

    if not together:
        return [await one(place) for place in places]
    found: list[str | None] = []
    for end in await asyncio.gather(*map(one, places), return_exceptions=True):
        if isinstance(end, BaseException):
            raise end
        found.append(end)
    return found
