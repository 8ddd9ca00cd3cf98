"""How a run begins and ends: what it is given is checked and recorded, the program works, the result is gathered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch
from jinja2 import TemplateError

from kvorum.engine.budget import Budget
from kvorum.engine.engine import EngineCore
from kvorum.errors import BadRequest, OutOfPages
from kvorum.jsontypes import Json
from kvorum.runs.injection import Injection
from kvorum.runs.parameters import Value, is_text
from kvorum.runs.program import Program, Task
from kvorum.runs.prompts import Prompts
from kvorum.runs.replay import Recording
from kvorum.runs.result import Result, WorkerResult
from kvorum.runs.run import Run
from kvorum.runs.state import RunState, Spent
from kvorum.runs.trace import Trace
from kvorum.runs.worker import choose_names
from kvorum.sampling.sampling import Sampling
from kvorum.store.events import Event, ModelData, StartEvent, note_event
from kvorum.versions import TRACE


async def arun(
    engine: EngineCore,
    /,
    program: Program,
    task: Task | str,
    *,
    workers: int | Sequence[str] | None = None,
    budget: Budget | None = None,
    sampling: Sampling | None = None,
    seed: int | None = None,
    trace: str | Path | None = None,
    listener: Callable[[Event], None] | None = None,
    replay: Sequence[Event] | None = None,
    control: Callable[[Run], None] | None = None,
    reseed: Sequence[tuple[int, int]] = (),
    tap: int = 0,
    inject: Sequence[Injection] = (),
    prompts: Prompts | None = None,
    **params: Value,
) -> Result:
    """Let ``program`` solve ``task``.

    Args:
        workers: how many, or their names. budget: default 512 ticks. sampling: default temperature 0.6, top-p 0.95.
        seed: default the engine's. trace: a file for the trace, written as the run goes; its folder must be there.
        listener: called with each event. replay: events of an earlier, perhaps unfinished, run of the same task: its
            tokens are taken from there, then the run goes on. control: gets the ``Run``, to send it commands.
        reseed: (tick, seed) pairs: from that tick on this seed, as in a run forked from another one's tick.
        tap: put whose words each worker attends to into the trace, in every so many-th tick; 0: never.
        inject: what is done beside the model. prompts: where prompts are that were encoded before.
        params: the program's own parameters.

    Raises:
        BadRequest, OutOfPages, BadTrace: each says what to do; the trace keeps what was done.
    """
    task = _checked(program, task, budget, sampling, seed)
    params = program.check(params)
    names = choose_names(program.default_workers if workers is None else workers)
    if replay is None:
        program.check_workers(len(names))
    names = names[: program.most_workers]  # traces of before may have more, who did nothing
    program.check_private(task, names)
    state = RunState(
        engine,
        budget or Budget(ticks=512),
        trace=Trace(trace, listener),
        recording=Recording() if replay is None else Recording(replay),
        prompts=prompts,
        reseed=[(int(tick), int(new)) for tick, new in reseed],
    )
    if tap:
        state.owners.every = engine.check_tap(tap)
    run = Run(
        state,
        task,
        names=names,
        sampling=sampling or Sampling(temperature=0.6, top_p=0.95),
        seed=engine.seed if seed is None else seed,
        inject=inject,
    )
    if control is not None:
        control(run)
    started = time.perf_counter()
    state.trace.open(replaying=replay is not None)
    try:
        state.trace.add(_start_event(run, program, params))
        if not state.replaying:
            state.trace.replace_old()
        answer = await _play(run, program, params)
        outcome = "none" if answer is None else run.outcome
        spent, ledger = run.spent, run.ledger.as_dict()
        state.trace.add({"event": "end", "outcome": outcome, "answer": answer, "spent": spent, "ledger": ledger})
        state.trace.replace_old()
    finally:
        state.trace.close()
    return Result(
        answer=answer,
        outcome=outcome,
        spent=spent,
        workers=[WorkerResult(worker.name, list(worker.ids), worker.text) for worker in run.workers],
        ledger=run.ledger,
        trace=state.trace,
        seconds=time.perf_counter() - started,
        score=None if task.verify is None else float(task.verify(answer)),
        differences=run.differences,
    )


async def _play(run: Run, program: Program, params: Mapping[str, Value]) -> str | None:
    """The program's answer; None where the budget ended it without one."""
    try:
        with suppress(Spent):
            return await program.function(run, **params)
    except TemplateError as error:
        raise BadRequest(f"The model's chat template cannot be used: {error}.") from error
    except OutOfPages:
        run.trace.add(note_event("out_of_pages", {"free": run.engine.pool.free_tokens}))
        raise
    return None


def _checked(
    program: Program, task: Task | str, budget: Budget | None, sampling: Sampling | None, seed: int | None
) -> Task:
    """The task. Raises BadRequest where a run is given something else than it takes, or an empty problem."""
    task = Task(task) if isinstance(task, str) else task
    wanted = (
        ("program", program, Program),
        ("task", task, Task),
        ("budget", budget or Budget(), Budget),
        ("sampling", sampling or Sampling(), Sampling),
        ("seed", seed or 0, int),
    )
    for what, given, kind in wanted:
        if not isinstance(given, kind):
            remedy = "; kvorum.programs.find(NAME) gives one" if what == "program" else ""
            raise BadRequest(f"A run's {what} must be a {kind.__name__}, not {given!r}{remedy}.")
    if not isinstance(task.prompt, str) or not task.prompt.strip():
        raise BadRequest("The problem is empty; say what to solve.")
    for words in (task.prompt, *task.private.values()):
        if not is_text(words):
            raise BadRequest(f"The problem holds {words[:80]!r}, which cannot be written as UTF-8.")
    return task


def _start_event(run: Run, program: Program, params: Mapping[str, Value]) -> StartEvent:
    """Everything that determines a run."""
    event: StartEvent = {
        "event": "start",
        "format": TRACE.newest,
        "program": program.name,
        "params": {name: _as_json(value) for name, value in params.items()},
        "task": {"prompt": run.task.prompt, "name": run.task.name},
        "workers": [worker.name for worker in run.workers],
        "budget": run.budget.as_dict(),
        "sampling": {
            "temperature": run.sampling.temperature,
            "top_p": run.sampling.top_p,
            "top_k": run.sampling.top_k,
            "min_p": run.sampling.min_p,
            "seed": run.sampling.seed,
            "banned": list(run.sampling.banned),
        },
        "seed": run.seed,
        "model": cast("ModelData", run.engine.about()),
        "ends": sorted(run.ends),
        "versions": {
            "kvorum": version("kvorum"),
            "torch": torch.__version__,
            "transformers": version("transformers"),
        },
    }
    if program.where:
        event["where"] = program.where
    if run.task.private:
        event["task"]["private"] = dict(run.task.private)
    if run.injections.injections:
        event["inject"] = run.injections.as_data()
    if run.state.reseed:
        event["reseed"] = [list(pair) for pair in run.state.reseed]
    return event


def _as_json(value: Value) -> Json:
    """A parameter as JSON can hold it: functions, in lists too, by their names."""
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _as_json(part) for name, part in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(getattr(value, "__name__", type(value).__name__))
