"""What runs have done is stored, for all of them at once before the next tick; then those who watch hear of it.

Where the store takes nothing, runs are held between two ticks until it does again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from kvorum.errors import BadTrace
from kvorum.runs.program import Program
from kvorum.runs.run import Run
from kvorum.serve.engine_thread.admission import Ticket
from kvorum.serve.engine_thread.thread import Channel
from kvorum.serve.errors import ApiError
from kvorum.serve.keys.spent import Spent
from kvorum.serve.reply_models.runs import RunSpec
from kvorum.store.events import Event, as_json
from kvorum.store.runs import Change, RunError, Store, StoreError

_RETRY = 2.0
"""Seconds between tries to store what could not be stored."""

RunNews = tuple[int, bool]
"""How many events of a run are stored, and whether its status has changed."""

log = logging.getLogger("kvorum.serve")


@dataclass(slots=True, eq=False)
class LiveRun:
    """A run that is not over. ``known`` are the stored events that it is to repeat, of which it has ``seen`` so many.

    ``ticket``: its place, once it has one. ``news``: what is not stored yet. ``over``: it has ended, and only that is
    still to be stored. ``left``: why it does not go on here, once it is left to another server.
    """

    id: str
    spec: RunSpec
    program: Program
    known: Sequence[Event]
    paused: bool
    spent: Spent
    news: Change = field(init=False)
    seen: int = 0
    status: str = "queued"
    run: Run | None = None
    ticket: Ticket | None = None
    task: asyncio.Task[None] | None = None
    watchers: list[Channel[RunNews]] = field(default_factory=list)
    stopping: bool = False
    over: bool = False
    left: ApiError | None = None

    def __post_init__(self) -> None:
        self.news = Change(self.id, len(self.known))


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
            live.spent.hear(event, again=True)
            live.seen += 1
            return
        live.spent.hear(event)
        live.news.events.append((event["event"], as_json(event)))
        if event["event"] == "tick":
            live.news.values |= {"ticks": event["n"] + 1, "ledger": event["ledger"]}
        elif event["event"] == "end":
            live.news.values |= {"outcome": event["outcome"], "answer": event["answer"]}
            live.news.values |= {"spent": event["spent"], "ledger": event["ledger"]}
        self._soon()

    def change(self, live: LiveRun, status: str, error: RunError | None = None) -> None:
        """Give a run another status; ``error``: why it failed."""
        live.status = live.news.values["status"] = status
        if error is not None:
            live.news.values["error"] = error
        self._soon()

    def leave(self, live: LiveRun, why: ApiError) -> None:
        """Let go of a run that cannot go on here, when what it has done is stored; who watches it hears ``why``."""
        log.error("run %s does not go on here: %s", live.id, why)
        live.left = why
        self._soon()

    def steer(self, live: LiveRun) -> None:
        """Hold a run between two ticks, or let it go on: as it is paused, and as the store takes what it does."""
        if live.run is None:
            return
        if live.paused or self.trouble is not None:
            live.run.gate.pause()
        else:
            live.run.gate.resume()

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
        changed = [live for live in self._live.values() if live.news.events or live.news.values]
        lost: Sequence[str] = []
        try:
            if changed:
                lost = self._store.save([live.news for live in changed])
        except StoreError as error:
            self._wait(str(error))
            return
        if self.trouble is not None:
            log.warning("the store works again: runs go on")
            self.trouble = None
            for live in self._live.values():
                self.steer(live)
        for live in (live for live in changed if live.id in lost):
            log.warning("run %s is another server's now, or was deleted: it ends here", live.id)
            del self._live[live.id]
            if live.task is not None:
                live.task.cancel()
            for watcher in live.watchers:
                watcher.close()
        for live in (live for live in changed if live.id not in lost):
            stored, live.news = live.news, Change(live.id, live.news.start + len(live.news.events))
            for watcher in live.watchers:
                watcher.put((live.news.start, "status" in stored.values))
                if live.over:
                    watcher.close()
            if live.over:
                del self._live[live.id]
                # What a program leaves in cycles (a tree and its branches) would hold pages until a later collection.
                asyncio.get_running_loop().call_soon(gc.collect)
        self._let_go([live for live in self._live.values() if live.left is not None])

    def _let_go(self, left: Sequence[LiveRun]) -> None:
        """Runs that do not go on here are anybody's now."""
        if left:
            with suppress(StoreError):  # else they are once the claims have run out
                self._store.claims.release([live.id for live in left])
        for live in left:
            del self._live[live.id]
            for watcher in live.watchers:
                watcher.close(live.left)

    def _wait(self, why: str) -> None:
        """The store takes nothing: hold all runs between two ticks, and try again."""
        if self.trouble is None:
            log.error("runs are held: %s", why)
        self.trouble = why
        for live in self._live.values():
            self.steer(live)
        self._flushing = True
        asyncio.get_running_loop().call_later(_RETRY, self._flush)
