"""How a run begins and ends: what it is given is checked and recorded, the program works, the result is gathered.

A run of any program may stand inside another one, behind one of its views, on the same budget, ledger, trace and seed.
Not covered there: commands and injections (they are for the outer program), a budget of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from kvorum.engine import text
from kvorum.engine.budget import Budget, Ledger
from kvorum.engine.engine import EngineCore
from kvorum.errors import BadRequest, OutOfPages
from kvorum.kv import View
from kvorum.runs.injection import Injection
from kvorum.runs.loops import Loop
from kvorum.runs.own_prompts import OwnPrompts
from kvorum.runs.parameters import Value, as_json, is_text
from kvorum.runs.program import Program, Task
from kvorum.runs.replay import Recording
from kvorum.runs.run import Run
from kvorum.runs.spending import Purse, Spent
from kvorum.runs.state import RunState
from kvorum.runs.trace import Trace
from kvorum.runs.worker import choose_names
from kvorum.sampling.sampling import Sampling
from kvorum.store.events import Event, GrammarData, ModelData, SamplingData, StartEvent, note_data, note_event
from kvorum.store.kept_blocks import KeptBlocks


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What one worker wrote: its token ids as picked, and their text; ``loop``: the one that it was in at the end."""

    name: str
    ids: list[int]
    text: str
    loop: Loop | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """How a run ended. ``outcome`` is "answered", "forced" (an answer that was asked for at the end), "cut" (the answer
    is what was written by then, unfinished) or "none" (there is no answer: nothing, or nothing but blanks).

    ``spent`` names the limit that ended it, if one did; ``workers`` are what each wrote, ``ledger`` what all of it
    took; ``score`` is the verifier's, if the task has one; ``seconds`` the wall time; ``differences`` where a replayed
    run did not repeat its trace. ``product`` is what the program made beside its answer, if it makes something.
    """

    answer: str | None
    outcome: str
    spent: str | None
    workers: list[WorkerResult]
    ledger: Ledger
    trace: Trace
    seconds: float
    score: float | None = None
    differences: list[str] = field(default_factory=list)
    product: Any = None

    @property
    def by(self) -> str | None:
        """The name of the worker that gave the answer, where the program tells it."""
        notes = [note for note in self.trace.events if note["event"] == "note" and note["kind"] == "found"]
        found = note_data(notes[-1]).get("worker") if notes else None
        return None if found is None else str(found)


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
    prompts: OwnPrompts | None = None,
    kept: KeptBlocks | None = None,
    thinking: bool | None = None,
    **params: Value,
) -> Result:
    """Let ``program`` solve ``task``.

    Args:
        workers: how many, or their names. budget: default 512 ticks. sampling: default temperature 0.6, top-p 0.95.
        seed: default the engine's. trace: a file for the trace, written as the run goes; its folder must be there.
        listener: called with each event. replay: events of an earlier, perhaps unfinished, run of the same task: its
            tokens are taken from there, then the run goes on. control: gets the ``Run``, to send it commands.
        reseed: (tick, seed) pairs: from that tick on this seed. tap: put whose words each worker attends to into the
            trace, in every so many-th tick; 0: never. inject: what is done beside the model. prompts: those that other
            runs have encoded, bit for bit as this one would. kept: where texts that programs share are kept on disk.
            thinking: what a chat template with a switch for it is told; None: nothing. params: the program's own.

    Raises:
        BadRequest, OutOfPages, BadTrace: each says what to do; the trace keeps what was done.
        VerifierError: the task's verifier failed.
    """
    budget, sampling = budget or Budget(ticks=512), sampling or Sampling(temperature=0.6, top_p=0.95)
    seed = engine.seed if seed is None else seed
    task = _checked(program, task, budget, sampling, seed)
    if not isinstance(thinking, bool | None):
        raise BadRequest(f"thinking is True, False or None, not {thinking!r}.")
    names = choose_names(program.workers_of(workers, params))
    params = program.check(params, workers=len(names) if replay is None else None)
    names = names[: program.most_workers]  # traces of before may have more, who did nothing
    program.check_private(task, names)
    recording = Recording(() if replay is None else replay)
    state = RunState(
        engine,
        Purse(budget, strict=recording.version > 2),
        trace=Trace(trace, listener),
        recording=recording,
        prompts=prompts,
        kept=kept,
        reseed=[(int(tick), int(new)) for tick, new in reseed],
        switches=text.thinking_switches(engine.tokenizer, thinking),
    )
    if tap:
        state.owners.every = engine.check_tap(tap)
    if sampling.grammar is not None:
        await engine.grammars.prepare(sampling.grammar)  # the workers begin under it, and other runs go on meanwhile
    run = Run(state, task, names=names, sampling=sampling, seed=seed, inject=inject)
    if control is not None:
        control(run)
    started = time.perf_counter()
    state.trace.open(replaying=replay is not None)
    try:
        state.trace.add(_start_event(run, program, params, thinking))
        if recording.repeated(0):
            state.trace.replace_old()
        answer = await _play(run, program, params)
        outcome, spent = "none" if answer is None else run.outcome, run.allowance.ended or run.spent
        ledger = run.ledger.as_dict()
        state.trace.add({"event": "end", "outcome": outcome, "answer": answer, "spent": spent, "ledger": ledger})
        state.trace.replace_old()
    finally:
        state.trace.close()
    return Result(
        answer=answer,
        outcome=outcome,
        spent=spent,
        workers=[WorkerResult(worker.name, list(worker.ids), worker.text, worker.loop) for worker in run.workers],
        ledger=run.ledger,
        trace=state.trace,
        seconds=time.perf_counter() - started,
        score=task.score(answer),
        differences=state.differences,
        product=run.product,
    )


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

    Several may be awaited at once and then share ticks; each counts its own on the ledger. The budget ends the program
    as it ends any, and what it sets aside for its closing nobody else spends.

    Args:
        view: of this run; its own block is seen as far as it is written now. task: default the run's.
        name: no other inside this run may have it; the trace calls its workers "name/worker".
        workers: as for a run, and so are the parameters of the program.

    Returns:
        Its answer.

    Raises:
        BadRequest: a parameter that the program does not have, wrong workers.
    """
    names = choose_names(program.workers_of(workers, params))
    params = program.check(params, workers=len(names))
    task = run.task if task is None else Task(task) if isinstance(task, str) else task
    state = run.state
    state.nested += 1
    base = run.seed if run.sampling.seed is None else run.sampling.seed
    seed = base + (state.nested << 32)  # draws of its own: its workers are counted from 0 again
    sampling, scope = replace(run.sampling, seed=seed), run.scope.inside(view, name)
    inner = Run(state, task, names=names, sampling=sampling, seed=seed, scope=scope)
    run.note("inside", name=name, program=program.name, tokens=len(view))
    answer: str | None = None
    try:
        with suppress(Spent):
            answer = _some(inner, await program.function(inner, **_as_then(inner, program, params)))
    finally:
        inner.allowance.release()
        run.allowance.ended = run.allowance.ended or inner.allowance.ended
    outcome = "none" if answer is None else inner.outcome
    run.note("inside", name=name, outcome=outcome, answer=answer)
    return answer


async def _play(run: Run, program: Program, params: Mapping[str, Value]) -> str | None:
    """The program's answer; None where the budget ended it without one."""
    try:
        with suppress(Spent):
            return _some(run, await program.function(run, **_as_then(run, program, params)))
    except OutOfPages:
        run.trace.add(note_event("out_of_pages", {"free": run.engine.pool.free_tokens}))
        raise
    return None


def _as_then(run: Run, program: Program, params: Mapping[str, Value]) -> dict[str, Value]:
    """The parameters, with the defaults that the program had when the trace was written which the run repeats."""
    version = run.state.recording.version
    loops = {name: "go_on" for name in program.params if name == "loops" and version < 4}  # nothing noticed them
    return {**loops, **(program.former if version < 3 else {}), **params}


def _some(run: Run, answer: str | None) -> str | None:
    """The answer; None for blanks, which up to version 2 of the trace were one."""
    return answer if (answer and answer.strip()) or run.state.recording.version < 3 else None


def _checked(program: Program, task: Task | str, budget: Budget, sampling: Sampling, seed: int) -> Task:
    """The task. Raises BadRequest where a run is given something else than it takes, or an empty problem."""
    task = Task(task) if isinstance(task, str) else task
    wanted = (
        ("program", program, Program),
        ("task", task, Task),
        ("budget", budget, Budget),
        ("sampling", sampling, Sampling),
        ("seed", seed, int),
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


def _start_event(run: Run, program: Program, params: Mapping[str, Value], thinking: bool | None) -> StartEvent:
    """Everything that determines a run."""
    event: StartEvent = {
        "event": "start",
        "format": run.state.recording.version,
        "program": program.name,
        "params": {name: as_json(value) for name, value in params.items()},
        "task": {"prompt": run.task.prompt, "name": run.task.name},
        "workers": [worker.name for worker in run.workers],
        "budget": run.state.budget.as_dict(),
        "sampling": _sampling_data(run),
        "seed": run.seed,
        "model": cast("ModelData", run.engine.about()),
        "ends": sorted(run.ends),
        "versions": {name: version(name) for name in ("kvorum", "torch", "transformers")},
    }
    if run.sampling.grammar is not None:
        event["grammar"] = cast("GrammarData", asdict(run.sampling.grammar))
    if program.where:
        event["where"] = program.where
    if run.state.recording.time is not None:
        event["time"] = run.state.recording.time.isoformat()
    if thinking is not None:
        event["thinking"] = thinking
    if run.task.private:
        event["task"]["private"] = dict(run.task.private)
    if run.injections.injections:
        event["inject"] = [one.as_data() for one in run.injections.injections]
    if run.state.reseed:
        event["reseed"] = [list(pair) for pair in run.state.reseed]
    return event


def _sampling_data(run: Run) -> SamplingData:
    """The run's sampling; a trace of an early version that is gone on with has what there was then."""
    found = run.sampling.as_data()
    if run.state.recording.version < 3:
        found = {name: found[name] for name in ("temperature", "top_p", "top_k", "min_p", "seed", "banned")}
    return cast("SamplingData", found)
