"""Programs inside programs: a run behind another run's view, on the same budget, ledger, trace and seed.

Covers any program: the one inside makes its views as always, and what the outer one shows stands in front of all of
them. Not covered: commands (they are for the outer program), a budget of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from kvorum.engine.row import Cost, Row
from kvorum.engine.scheduler import Reply
from kvorum.kv import Block, View
from kvorum.runs.injection import Injector
from kvorum.runs.numbering import Told
from kvorum.runs.run import MAX_WORKERS, Command, Program, Run, Spent, Task
from kvorum.runs.trace import Trace
from kvorum.runs.worker import Worker, choose_names
from kvorum.store.traces import Event


async def inside(
    run: Run,
    view: View,
    program: Program,
    task: Task | str | None = None,
    *,
    name: str,
    workers: int | Sequence[str] | None = None,
    **params: Any,
) -> str | None:
    """Let ``program`` work behind ``view``: its workers see what stands there now, then what they see anyway.

    Several may be awaited at once and then share ticks; each counts its own on the ledger. A reached budget ends the
    program as it ends any: what it forces itself to answer goes beyond it.

    Args:
        view: of this run; its own block is seen as far as it is written now. task: default the run's.
        name: no other inside this run may have it; the trace calls its workers "name/worker".
        workers: as for a run, and so are the parameters of the program.

    Returns:
        Its answer.

    Raises:
        BadRequest: a parameter that the program does not have, wrong workers.
    """
    params = program.check(params)
    names = choose_names(program.default_workers if workers is None else workers, MAX_WORKERS)
    program.check_workers(len(names))
    task = run.task if task is None else Task(task) if isinstance(task, str) else task
    inner = _Inner(run, view, task, name, names)
    run.note("inside", name=name, program=program.name, tokens=len(view))
    answer: str | None = None
    with suppress(Spent):
        answer = await program.function(inner, **params)
    outcome = "none" if answer is None else inner.outcome
    run.note("inside", name=name, outcome=outcome, answer=answer)
    return answer


def _shared(name: str) -> Any:
    """An attribute that is the outer run's: the trace counts one order of events."""
    return property(lambda self: getattr(self._outer, name), lambda self, value: setattr(self._outer, name, value))


class _Inner(Run):
    label: str
    """What its workers' and blocks' names begin with, in the trace."""
    _ticks = _shared("_ticks")
    _forwards = _shared("_forwards")
    _asked = _shared("_asked")

    def __init__(self, outer: Run, before: View, task: Task, label: str, names: Sequence[str]) -> None:
        numbers = outer.__dict__.setdefault("_inner_numbers", count(1))
        self.__dict__.update(outer.__dict__)
        self._outer = outer
        before = outer.placed(before) if isinstance(outer, _Inner) else before
        self._before = before.fork(len(before)).items
        self._placed: WeakKeyDictionary[View, View] = WeakKeyDictionary()
        self.task, self.workers, self.outcome, self._grace = task, [], "answered", False
        self.injected = Injector(self, (), ())  # injections too
        self._steered = True  # commands are for the outer program
        self.label = f"{outer.label}{label}/" if isinstance(outer, _Inner) else f"{label}/"
        self.told, self.trace = _Told(outer.told, self), _Trace(outer.trace, f"{label}/")
        base = outer.seed if outer.sampling.seed is None else outer.sampling.seed
        self.seed = base + (next(numbers) << 32)  # draws of its own: its workers are counted from 0 again
        self.sampling = replace(outer.sampling, seed=self.seed)
        for name in names:
            self.join(name)

    def block(self, name: str) -> Block:
        return super().block(self.label + name)

    def take_commands(self, **options: Any) -> list[Command]:
        return []

    def placed(self, view: View) -> View:
        """A view of the program inside, with what stands before it. The same object for the same view."""
        if view not in self._placed:
            self._placed[view] = View(*self._before, *view.items)
        return self._placed[view]

    def credit(self, block: Block, name: str, *where: int) -> None:
        super().credit(block, self.label + name if name else "", *where)

    async def _forward(self, rows: Sequence[Row], costs: Sequence[Cost], **options: Any) -> Reply:
        placed = [replace(row, view=self.placed(row.view)) for row in rows]
        return await super()._forward(placed, costs, **options)

    def _told(self, workers: Sequence[Worker], rows: Sequence[Row]) -> Event | None:
        named: Any = [_Named(self.label + worker.name) for worker in workers]
        return super()._told(named, rows)


@dataclass(frozen=True, slots=True)
class _Named:
    """A worker as the trace calls it."""

    name: str


class _Trace(Trace):
    """The outer run's trace, which is told whose workers speak."""

    def __init__(self, trace: Trace, label: str) -> None:
        self._trace, self._label = trace, label
        self.events, self.path = trace.events, trace.path

    def add(self, kind: str, /, **data: Any) -> None:
        if "worker" in data:
            data["worker"] = self._label + data["worker"]
        if kind in ("tick", "attention"):
            data["rows"] = [{**line, "worker": self._label + line["worker"]} for line in data["rows"]]
        self._trace.add(kind, **data)

    def caught_up(self) -> None:
        self._trace.caught_up()


class _Told(Told):
    """The trace is told whole views."""

    def __init__(self, told: Told, inner: _Inner) -> None:
        self._numbers = told._numbers
        self._inner = inner

    def view(self, view: View) -> list[tuple[str, int, int | None, int | None, int]]:
        return super().view(self._inner.placed(view))
