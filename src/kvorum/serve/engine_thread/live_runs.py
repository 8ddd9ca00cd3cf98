"""Runs on the engine's loop: each is a task that runs a program, hands its events on, and can be steered.

A run that was under way when the process ended is replayed from its stored events and goes on. Not covered: how events
are stored and reach those who watch (``run_recorder``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from kvorum.api import Engine
from kvorum.errors import BadTrace, WorkersLost
from kvorum.jsontypes import JsonObject
from kvorum.programs import REGISTRY
from kvorum.runs.own_prompts import OwnPrompts
from kvorum.runs.prefix_cache import PrefixCache
from kvorum.runs.program import Program
from kvorum.runs.run import Run
from kvorum.runs.start import arun
from kvorum.runs.steering import Command
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.run_recorder import LiveRun, RunNews, RunRecorder
from kvorum.serve.engine_thread.thread import Channel
from kvorum.serve.errors import ApiError, as_api_error, conflict
from kvorum.serve.keys.caller import Caller
from kvorum.serve.keys.spent import Spent
from kvorum.serve.metrics import Metrics
from kvorum.serve.reply_models.runs import RunSpec
from kvorum.serve.telemetry import Telemetry
from kvorum.store.events import Event
from kvorum.store.runs import Record, RunError, Store, StoreError

_FIXED = 2048
"""Tokens that a program may write besides the problem and what its budget allows: rules, headings, the last answer."""

log = logging.getLogger("kvorum.serve")


@dataclass(eq=False)
class LiveRuns:
    """All runs of one engine that are not over, and what may be done to them.

    ``fingerprint``: of the model and how it is held. ``resumed``: whom a run that goes on is for, by its owner.
    ``held``: unfinished runs that cannot go on here, and why.
    """

    engine: Engine
    store: Store
    admission: Admission
    prompts: PrefixCache
    metrics: Metrics
    fingerprint: str
    telemetry: Telemetry
    resumed: Callable[[str], Caller]
    held: dict[str, RunError] = field(default_factory=dict)
    live: dict[str, LiveRun] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.recorder = RunRecorder(self.store, self.live)

    # -- beginning ---------------------------------------------------------------------------------------------

    async def start(
        self,
        spec: RunSpec,
        caller: Caller,
        *,
        paused: bool = False,
        parent: JsonObject | None = None,
        events: Sequence[Event] = (),
    ) -> str:
        """A new run; with ``events``, those of a fork that it repeats first; ``parent``: where it was forked from.

        Returns its id.

        Raises:
            ApiError: 429, 400. StoreError: nothing was begun.
        """
        if self.recorder.trouble is not None:  # a short record may still fit where a run's events do not
            raise StoreError(self.recorder.trouble)
        program = REGISTRY[spec.program]
        self.admission.check(len(spec.workers), self._pages(spec, program))
        run = f"run_{secrets.token_hex(12)}"
        self.store.add(run, spec.model_dump(), self.fingerprint, parent=parent, events=events, owner=caller.owner)
        self._begin(LiveRun(run, spec, program, events, paused, Spent(caller)))
        return run

    async def resume(self, records: Sequence[tuple[Record, Sequence[Event]]]) -> None:
        """Go on with the runs that a stopped server has left."""
        for record, events in records:
            spec = RunSpec.model_validate(record.spec)
            program = REGISTRY.get(spec.program)
            if record.fingerprint != self.fingerprint:
                why = "The model is another one than when this run began, so its tokens would differ"
                message = f"{why}: start the server with the model that it began with, and it goes on."
                self.held[record.id] = {"type": "model_changed", "message": message}
            elif program is None:
                message = f"The program {spec.program} is not here: start the server with it, and this run goes on."
                self.held[record.id] = {"type": "program_missing", "message": message}
            else:
                caller = self.resumed(record.owner)
                live = LiveRun(record.id, spec, program, events, record.status == "paused", Spent(caller))
                self._begin(live, patient=True)

    async def send_away(self, error: ApiError) -> None:
        """Let only runs wait for a place, which go on with the next server, and nobody for such a run."""
        self.admission.refuse(error)
        waiting = [live for live in self.live.values() if live.status == "queued"]
        for watcher in (watcher for live in waiting for watcher in live.watchers):
            watcher.close(error)

    def _begin(self, live: LiveRun, patient: bool = False) -> None:
        self.live[live.id] = live
        begun_by = self.telemetry.here()

        async def run() -> None:
            with self.telemetry.run(live.id, live.program.name, begun_by) as tell:
                await self._run(live, patient)
                tell({"kvorum.run.status": live.status})

        live.task = asyncio.get_running_loop().create_task(run())

    def _pages(self, spec: RunSpec, program: Program) -> int:
        """The pages of a run's worst case; what is re-encoded beyond that may still run out of pages."""
        workers, budget = len(spec.workers), spec.budget
        limits = [budget.decoded, budget.tokens, None if budget.ticks is None else budget.ticks * workers]
        written = min(limit for limit in limits if limit is not None)
        tokens = program.cache_tokens(written, spec.params) + len(spec.problem) + _FIXED
        return self.engine.pool.pages_for(tokens) + 4 * workers

    async def _run(self, live: LiveRun, patient: bool) -> None:
        spec, caller, status, error = live.spec, live.spent.caller, "failed", None
        try:
            pages = self._pages(spec, live.program)
            ticket = await self.admission.enter(
                caller.turn, len(spec.workers), lambda: pages, run=True, patient=patient
            )
            live.ticket = ticket
            try:
                self.recorder.change(live, "paused" if live.paused else "running")
                self._settle(live)
                await arun(
                    self.engine,
                    live.program,
                    spec.problem,
                    workers=spec.workers,
                    budget=spec.budget,
                    sampling=spec.sampling,
                    seed=spec.seed,
                    reseed=spec.reseed,
                    tap=spec.attention,
                    thinking=spec.thinking,
                    replay=live.known or None,
                    listener=lambda event: self.recorder.hear(live, event),
                    control=lambda run: self._got(live, run),
                    prompts=OwnPrompts(self.prompts, caller.owner),
                    **spec.params,  # type: ignore[arg-type]
                )
                if live.seen < len(live.known):
                    raise BadTrace("The run ended before it had repeated its trace: its budget is too small for it.")
                status = "finished"
            finally:
                live.run = live.ticket = None
                self.admission.leave(ticket)
        except asyncio.CancelledError:
            if not live.stopping:  # the server stops; the run goes on with the next one
                raise
            status = "stopped"
        except WorkersLost as gone:
            self._leave(live, as_api_error(gone))
            return
        except Exception as failure:
            refusal = as_api_error(failure)
            error = RunError(message=refusal.message, type=type(failure).__name__)
            if refusal.status >= 500:
                log.exception("run %s failed", live.id)
            del failure
        live.over = True
        self.metrics.runs.labels(status).inc()
        self.recorder.change(live, status, error)

    def _leave(self, live: LiveRun, why: ApiError) -> None:
        """A run whose engine is gone is not over: it goes on with another server, or the next one here."""
        if not self.store.shared:
            self.held[live.id] = {"type": "engine_lost", "message": f"{why} The next server goes on with the run."}
        self.recorder.leave(live, why)

    def _got(self, live: LiveRun, run: Run) -> None:
        live.run = run
        self.recorder.steer(live)

    def held_why(self, run: str) -> RunError | None:
        """Why an unfinished run does not go on; None: it does, or it is paused or over."""
        if run not in self.held and self.recorder.trouble is not None and run in self.live:
            return {"type": "store_unavailable", "message": self.recorder.trouble}
        return self.held.get(run)

    # -- watching and steering ---------------------------------------------------------------------------------

    async def watch(self, run: str, channel: Channel[RunNews]) -> None:
        """Tell ``channel`` how it is with a run now, and each time that something of it is stored, until it is over."""
        live = self.live.get(run)
        if live is None:
            channel.put((2**62, False))  # all that there are
            channel.close()
        else:
            channel.put((live.news.start, False))
            live.watchers = [*(watcher for watcher in live.watchers if not watcher.closed), channel]

    def _find(self, run: str) -> LiveRun:
        live = self.live.get(run)
        if live is None or live.over or live.stopping:
            raise conflict(self.held[run]["message"] if run in self.held else self._not_here(run))
        return live

    def _not_here(self, run: str) -> str:
        record = self.store.get(run) if self.store.shared else None
        if run in self.live or record is None or record.over:
            return "This run is over."
        return "Another server goes on with this run: ask with the x-session-id that it was begun with, or again soon."

    async def pause(self, run: str) -> None:
        """Hold a run between two ticks. Raises ApiError 409 where it is over."""
        live = self._find(run)
        live.paused = True
        self.recorder.steer(live)
        if live.status == "running":
            self.recorder.change(live, "paused")
        self._settle(live)

    async def go_on(self, run: str) -> None:
        """Let a paused run go on. Raises ApiError 409 where it is over."""
        live = self._find(run)
        live.paused = False
        self.recorder.steer(live)
        if live.status == "paused":
            self.recorder.change(live, "running")
        self.admission.settle()  # for runs that wait aside

    def _settle(self, live: LiveRun) -> None:
        """Send away who cannot come in beside a run that is held from now on."""
        if live.paused:
            asyncio.get_running_loop().call_soon(self.admission.settle)

    @property
    def paused(self) -> tuple[int, int]:
        """Pages and rows that paused runs keep."""
        held = [live.ticket for live in self.live.values() if live.paused and live.ticket is not None]
        return sum(ticket.pages for ticket in held), sum(ticket.rows for ticket in held)

    async def step(self, run: str, ticks: int) -> None:
        """Let a run do so many ticks and hold it again. Raises ApiError 409 where it is over or has not begun."""
        live = self._find(run)
        if live.run is None:
            raise conflict("This run waits for its turn; it cannot be stepped yet.")
        await self.pause(run)
        if self.recorder.trouble is None:
            live.run.gate.step(ticks)

    async def command(self, run: str, command: Command) -> None:
        """Ask something of a run, to be taken up between two ticks. Raises ApiError 409 where it cannot take it up."""
        live = self._find(run)
        if live.run is None:
            raise conflict("This run waits for its turn; ask again when it runs.")
        if command.kind in ("say", "share", "leave") and not live.program.listens:
            raise conflict(f"Workers of {live.program.name} take nothing up; ask for the answer, or stop the run.")
        names = [worker.name for worker in live.run.workers]
        if command.kind in ("say", "leave") and command.worker not in names:
            raise conflict(f"This run has no worker {command.worker[:40]!r}; it has: {', '.join(names)}.")
        if command.kind in ("say", "leave") and not live.run.workers[names.index(command.worker)].active:
            raise conflict(f"{command.worker} has ended or left and takes nothing up any more.")
        if command.kind == "join" and not live.program.joins:
            raise conflict(f"Nobody can join a run of {live.program.name}: it has the workers that it began with.")
        if command.kind == "join" and command.worker in names:
            raise conflict(f"There is a worker named {command.worker} already; names must differ.")
        if len(live.run.commands) >= 64:
            raise conflict("This run has 64 commands to take up already.")
        live.run.commands.append(command)

    async def stop(self, run: str) -> None:
        """End a run; what it has done so far is kept. Raises ApiError 409 where it is over."""
        live = self._find(run)
        live.stopping = True
        assert live.task is not None
        live.task.cancel()
        await asyncio.wait([live.task])
        self.recorder.settle()

    async def delete(self, run: str) -> None:
        """Forget a run with its trace; it is stopped first. Raises StoreError."""
        with suppress(ApiError):  # it is over
            await self.stop(run)
        self.held.pop(run, None)
        self.store.delete(run)
