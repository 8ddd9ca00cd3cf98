"""Runs on the engine's loop: each is a task that runs a program, tells its events, and can be steered.

An event is told to watchers once it is stored. Where the store takes nothing, runs are held between two ticks until it
does again. A run that was under way when the process ended is replayed from its stored events and goes on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kvorum.api import Engine
from kvorum.engine.budget import Budget
from kvorum.errors import BadTrace
from kvorum.programs import find
from kvorum.runs.prompts import Prompts
from kvorum.runs.run import Run, arun
from kvorum.runs.steering import Command
from kvorum.sampling.sampling import Sampling
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.thread import Channel, EngineHost
from kvorum.serve.errors import conflict, told
from kvorum.serve.metrics import Metrics
from kvorum.store.runs import Change, Record, Store, StoreError, as_json
from kvorum.store.traces import Event

_RETRY = 2.0
"""Seconds between tries to store what could not be stored."""
_FIXED = 2048
"""Tokens that a program may write besides the problem and what its budget allows: rules, headings, the last answer."""

News = tuple[int, str, str] | None
"""(number, kind, JSON) of an event; None where the run's status has changed."""

log = logging.getLogger("kvorum.serve")


@dataclass(slots=True, eq=False)
class Live:
    """A run that is not over. ``known`` are the kinds of events that it is to repeat, having told them before."""

    id: str
    spec: dict[str, Any]
    count: int
    known: list[str]
    paused: bool
    seen: int = 0
    status: str = "queued"
    run: Run | None = None
    task: asyncio.Task[None] | None = None
    pending: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    watchers: list[Channel[News]] = field(default_factory=list)
    stopping: bool = False
    over: bool = False


class Runs:
    """All runs of one engine that are not over."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        admission: Admission,
        host: EngineHost,
        metrics: Metrics,
        fingerprint: str,
        prompts: Prompts,
    ) -> None:
        self._engine, self._store, self._admission, self._host, self._metrics = engine, store, admission, host, metrics
        self._fingerprint, self._prompts = fingerprint, prompts
        self.live: dict[str, Live] = {}
        self.held: dict[str, dict[str, str]] = {}
        """Unfinished runs that cannot go on here, and why."""
        self.trouble: str | None = None
        """Why the store takes nothing, if it does not."""
        self._flushing = False

    # -- beginning ---------------------------------------------------------------------------------------------

    async def start(
        self,
        spec: dict[str, Any],
        client: str,
        *,
        paused: bool = False,
        parent: dict[str, Any] | None = None,
        events: Sequence[Event] = (),
    ) -> str:
        """A new run; with ``events``, those of a fork that it repeats first. Returns its id.

        Raises:
            ApiError: 429, 400. StoreError: nothing was begun.
        """
        if self.trouble is not None:  # a short record may still fit where a run's events do not
            raise StoreError(self.trouble)
        self._admission.check(len(spec["workers"]), self._pages(spec))
        run = f"run_{secrets.token_hex(12)}"
        self._store.add(run, spec, self._fingerprint, parent=parent, events=events)
        self._begin(Live(run, spec, len(events), [event["event"] for event in events], paused), client, events)
        return run

    def resume(self, records: Sequence[tuple[Record, Sequence[Event]]]) -> None:
        """Go on with the runs that a stopped server has left."""
        for record, events in records:
            if record.fingerprint != self._fingerprint:
                why = (
                    "The model is another one than when this run began, so its tokens would differ: start the server "
                    "with the model that it began with, and it goes on."
                )
                self.held[record.id] = {"message": why, "type": "model_changed"}
                continue
            known = [event["event"] for event in events]
            live = Live(record.id, record.spec, len(events), known, record.status == "paused")
            self._begin(live, "resumed", events, patient=True)

    def _begin(self, live: Live, client: str, events: Sequence[Event], patient: bool = False) -> None:
        self.live[live.id] = live
        live.task = asyncio.get_running_loop().create_task(self._run(live, client, events, patient))

    def _pages(self, spec: dict[str, Any]) -> int:
        """The pages of a run's worst case; what is re-encoded beyond that may still run out of pages."""
        budget, workers = spec["budget"], len(spec["workers"])
        written = min(budget["ticks"] * workers, *(budget.get(name, 2**62) for name in ("decoded", "tokens")), 2**62)
        tokens = (2 if spec["program"] == "hogwild" else 1) * int(written) + len(spec["problem"]) + _FIXED
        return -(-tokens // self._engine.pool.page_size) + 4 * workers

    async def _run(self, live: Live, client: str, events: Sequence[Event], patient: bool) -> None:
        spec, status, error = live.spec, "failed", None
        try:
            ticket = await self._admission.enter(
                client, len(spec["workers"]), lambda: self._pages(spec), patient=patient
            )
            try:
                self._tell(live, "paused" if live.paused else "running")
                await arun(
                    self._engine,
                    find(spec["program"]),
                    spec["problem"],
                    workers=spec["workers"],
                    budget=Budget(**spec["budget"]),
                    sampling=Sampling(**spec["sampling"]),
                    seed=spec["seed"],
                    reseed=[(tick, seed) for tick, seed in spec["reseed"]],
                    replay=events or None,
                    listener=lambda event: self._hear(live, event),
                    control=lambda run: self._got(live, run),
                    prompts=self._prompts,
                    **spec["params"],
                )
                if live.seen < len(live.known):
                    raise BadTrace("The run ended before it had repeated its trace: its budget is too small for it.")
                status = "finished"
            finally:
                live.run = None
                self._admission.leave(ticket)
        except asyncio.CancelledError:
            if not live.stopping:  # the server stops; the run goes on with the next one
                raise
            status = "stopped"
        except Exception as failure:
            found = told(failure)
            error = {"message": found.message, "type": type(failure).__name__}
            if found.status >= 500:
                log.exception("run %s failed", live.id)
            del failure
        live.over = True
        if error is not None:
            live.values["error"] = error
        self._metrics.runs.labels(status).inc()
        self._tell(live, status)

    def _got(self, live: Live, run: Run) -> None:
        live.run = run
        if live.paused or self.trouble is not None:
            run.gate.pause()

    # -- telling -----------------------------------------------------------------------------------------------

    def _hear(self, live: Live, event: Event) -> None:
        if live.seen < len(live.known):
            if event["event"] != live.known[live.seen]:
                raise BadTrace(
                    f"Event {live.seen} of the trace is {live.known[live.seen]!r} and is now {event['event']!r}: the "
                    "trace was made by another version or program."
                )
            live.seen += 1
            return
        live.pending.append((event["event"], as_json(event)))
        if event["event"] == "tick":
            live.values |= {"ticks": event["n"] + 1, "ledger": event["ledger"]}
        elif event["event"] == "end":
            live.values |= {name: event[name] for name in ("outcome", "answer", "spent", "ledger")}
        self._soon()

    def _tell(self, live: Live, status: str) -> None:
        live.status = live.values["status"] = status
        self._soon()

    def _soon(self) -> None:
        """Store what there is before the next tick, all runs at once."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        changed = [live for live in self.live.values() if live.pending or live.values]
        changes = [Change(live.id, live.count, live.pending, live.values) for live in changed]
        try:
            if changes:
                self._store.save(changes)
        except StoreError as error:
            self._hold(str(error))
            return
        if self.trouble is not None:
            self._release()
        for live in changed:
            events, news = live.pending, "status" in live.values or "error" in live.values
            live.pending, live.values = [], {}
            for watcher in list(live.watchers):
                for n, (kind, body) in enumerate(events, start=live.count):
                    watcher.put((n, kind, body))
                if news:
                    watcher.put(None)
                if live.over:
                    watcher.close()
            live.count += len(events)
            if live.over:
                del self.live[live.id]
                # What a program leaves in cycles (a tree and its branches) would hold pages until a later collection.
                asyncio.get_running_loop().call_soon(gc.collect)

    def _hold(self, why: str) -> None:
        """The store takes nothing: hold all runs between two ticks, and try again."""
        if self.trouble is None:
            log.error("runs are held: %s", why)
        self.trouble = why
        for live in self.live.values():
            if live.run is not None:
                live.run.gate.pause()
        self._flushing = True
        asyncio.get_running_loop().call_later(_RETRY, self._flush)

    def _release(self) -> None:
        log.warning("the store works again: runs go on")
        self.trouble = None
        for live in self.live.values():
            if live.run is not None and not live.paused:
                live.run.gate.resume()

    # -- watching and steering ---------------------------------------------------------------------------------

    async def watch(self, run: str, most: int) -> tuple[Channel[News], int] | None:
        """A channel of what is told from now on, and how many events were told before; None: the run is over."""
        live = self.live.get(run)
        if live is None:
            return None
        channel: Channel[News] = Channel(self._host, most)
        live.watchers = [watcher for watcher in live.watchers if not watcher.closed]
        live.watchers.append(channel)
        return channel, live.count

    def _find(self, run: str) -> Live:
        live = self.live.get(run)
        if live is None or live.over or live.stopping:
            raise conflict(self.held[run]["message"] if run in self.held else "This run is over.")
        return live

    async def pause(self, run: str) -> None:
        """Hold it between two ticks."""
        live = self._find(run)
        live.paused = True
        if live.run is not None:
            live.run.gate.pause()
        if live.status == "running":
            self._tell(live, "paused")

    async def go_on(self, run: str) -> None:
        """Let it go on."""
        live = self._find(run)
        live.paused = False
        if live.run is not None and self.trouble is None:
            live.run.gate.resume()
        if live.status == "paused":
            self._tell(live, "running")

    async def step(self, run: str, ticks: int) -> None:
        """Let it do so many ticks."""
        live = self._find(run)
        if live.run is None:
            raise conflict("This run waits for its turn; it cannot be stepped yet.")
        await self.pause(run)
        if self.trouble is None:
            live.run.gate.step(ticks)

    async def command(self, run: str, command: Command) -> None:
        """Ask something of it, to be taken up between two ticks."""
        live = self._find(run)
        if live.run is None:
            raise conflict("This run waits for its turn; ask again when it runs.")
        names = [worker.name for worker in live.run.workers]
        if command.kind in ("say", "leave") and command.worker not in names:
            raise conflict(f"This run has no worker {command.worker[:40]!r}; it has: {', '.join(names)}.")
        if command.kind in ("say", "leave") and not live.run.workers[names.index(command.worker)].active:
            raise conflict(f"{command.worker} has ended or left and takes nothing up any more.")
        if command.kind == "join" and not find(live.spec["program"]).joins:
            raise conflict(f"Nobody can join a run of {live.spec['program']}: it has the workers that it began with.")
        if command.kind == "join" and command.worker in names:
            raise conflict(f"There is a worker named {command.worker} already; names must differ.")
        if len(live.run.commands) >= 64:
            raise conflict("This run has 64 commands to take up already.")
        live.run.commands.append(command)

    async def stop(self, run: str) -> None:
        """End it; what it has told is kept."""
        live = self._find(run)
        live.stopping = True
        assert live.task is not None
        live.task.cancel()
        await asyncio.wait([live.task])
        if not self._flushing:
            self._flush()
