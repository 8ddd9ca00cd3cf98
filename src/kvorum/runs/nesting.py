"""Programs inside programs: a run behind another run's view, on the same budget, ledger, trace and seed.

Covers any program: the one inside makes its views as always, and what the outer one shows stands in front of all of
them. Not covered: commands and injections (they are for the outer program), a budget of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from kvorum.kv import View
from kvorum.runs.parameters import Value
from kvorum.runs.program import Program, Task
from kvorum.runs.run import Run
from kvorum.runs.state import Spent
from kvorum.runs.worker import choose_names


async def inside(
    run: Run,
    view: View,
    program: Program,
    task: Task | str | None = None,
    *,
    name: str,
    workers: int | Sequence[str] | None = None,
    **params: Value,
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
    names = choose_names(program.default_workers if workers is None else workers)
    program.check_workers(len(names))
    task = run.task if task is None else Task(task) if isinstance(task, str) else task
    state = run.state
    state.nested += 1
    base = run.seed if run.sampling.seed is None else run.sampling.seed
    seed = base + (state.nested << 32)  # draws of its own: its workers are counted from 0 again
    inner = Run(
        state,
        task,
        names=names,
        sampling=replace(run.sampling, seed=seed),
        seed=seed,
        scope=run.scope.inside(view, name),
    )
    run.note("inside", name=name, program=program.name, tokens=len(view))
    answer: str | None = None
    with suppress(Spent):
        answer = await program.function(inner, **params)
    outcome = "none" if answer is None else inner.outcome
    run.note("inside", name=name, outcome=outcome, answer=answer)
    return answer
