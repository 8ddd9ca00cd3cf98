"""What runs have done is stored, for all of them at once before the next tick, and then goes to those who watch.

Where the store takes nothing, runs are held between two ticks until it does again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvorum.engine.budget import LedgerData
from kvorum.errors import BadTrace
from kvorum.jsontypes import Json
from kvorum.runs.program import Program
from kvorum.runs.run import Run
from kvorum.serve.engine_thread.thread import Channel
from kvorum.serve.reply_models import RunSpec
from kvorum.store.events import Event, as_json
from kvorum.store.runs import Change, Store, StoreError

_RETRY = 2.0
"""Seconds between tries to store what could not be stored."""

RunUpdate = tuple[int, str, str] | None
"""(number, kind, JSON) of an event; None where the run's status has changed."""

log = logging.getLogger("kvorum.serve")


@dataclass(slots=True, eq=False)
class LiveRun:
    """A run that is not over. ``known`` are the stored events that it is to repeat; ``count``: how many are stored."""

    id: str
    spec: RunSpec
    program: Program
    known: Sequence[Event]
    paused: bool
    count: int = field(init=False)
    seen: int = 0
    status: str = "queued"
    run: Run | None = None
    task: asyncio.Task[None] | None = None
    pending: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, Json | LedgerData] = field(default_factory=dict)
    watchers: list[Channel[RunUpdate]] = field(default_factory=list)
    stopping: bool = False
    over: bool = False

    def __post_init__(self) -> None:
        self.count = len(self.known)

    def hold(self) -> None:
        """Let it do no further tick, where it has begun."""
        if self.run is not None:
            self.run.gate.pause()

    def release(self) -> None:
        """Let it go on, where it has begun and nobody has paused it."""
        if self.run is not None and not self.paused:
            self.run.gate.resume()


class RunRecorder:
    """Stores the events and columns of runs; ``live`` are those that are not over, by their id."""

    def __init__(self, store: Store, live: dict[str, LiveRun]) -> None:
        self._store, self._live = store, live
        self.trouble: str | None = None
        """Why the store takes nothing, if it does not."""
        self._flushing = False

    def hear(self, live: LiveRun, event: Event) -> None:
        """Take an event of a run up; one that is stored already is only compared. Raises BadTrace where they differ."""
        if live.seen < len(live.known):
            kind = live.known[live.seen]["event"]
            if event["event"] != kind:
                raise BadTrace(
                    f"Event {live.seen} of the trace is {kind!r} and is now {event['event']!r}: the trace was made by "
                    "another version or program."
                )
            live.seen += 1
            return
        live.pending.append((event["event"], as_json(event)))
        if event["event"] == "tick":
            live.values |= {"ticks": event["n"] + 1, "ledger": event["ledger"]}
        elif event["event"] == "end":
            live.values |= {"outcome": event["outcome"], "answer": event["answer"]}
            live.values |= {"spent": event["spent"], "ledger": event["ledger"]}
        self._soon()

    def change(self, live: LiveRun, status: str) -> None:
        """Give a run another status."""
        live.status = live.values["status"] = status
        self._soon()

    def _soon(self) -> None:
        """Store what there is before the next tick, all runs at once."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def settle(self) -> None:
        """Store what there is now, unless the store has to be waited for."""
        if not self._flushing:
            self._flush()

    def _flush(self) -> None:
        self._flushing = False
        changed = [live for live in self._live.values() if live.pending or live.values]
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
                del self._live[live.id]
                # What a program leaves in cycles (a tree and its branches) would hold pages until a later collection.
                asyncio.get_running_loop().call_soon(gc.collect)

    def _hold(self, why: str) -> None:
        """The store takes nothing: hold all runs between two ticks, and try again."""
        if self.trouble is None:
            log.error("runs are held: %s", why)
        self.trouble = why
        for live in self._live.values():
            live.hold()
        self._flushing = True
        asyncio.get_running_loop().call_later(_RETRY, self._flush)

    def _release(self) -> None:
        log.warning("the store works again: runs go on")
        self.trouble = None
        for live in self._live.values():
            live.release()
