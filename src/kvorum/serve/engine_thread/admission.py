"""Who may start now: by the pages that a request or run can come to need, and by the rows of a tick.

Everyone is let in with the pages of its worst case, so that what has begun can end. Clients take turns: one that sends
a thousand requests waits behind its own. Within a client the order is that of arrival, and nobody is passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from kvorum.serve.errors import ApiError, busy, within


@dataclass(slots=True, eq=False)
class Ticket:
    """A place, once ``let_in`` is done. ``pages`` are kept for its holder, who makes ``rows`` rows of a tick."""

    rows: int
    need: Callable[[], int]
    giveback: Callable[[], None]
    let_in: asyncio.Future[None]
    run: bool
    pages: int = 0
    since: float = 0.0


def too_large(pages: int, there: int) -> ApiError:
    """The refusal of who asks for more pages than there will ever be."""
    return ApiError(
        400,
        f"This could need {pages} pages of the cache and there are {there}: ask for fewer tokens, ticks or workers, or "
        "start the server with a larger --kv-tokens.",
    )


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Kept:
    """What clients hold for as long as they like: pages of ``blocks``, pages and rows of ``paused`` runs."""

    blocks: int = 0
    paused: int = 0
    rows: int = 0


class Admission:
    """Lets requests and runs in, as pages and rows allow. Of the engine's loop.

    Args:
        pages: how many there are for requests and runs. free_up: asked to make room for so many more pages where
            ``taken()``, what is held besides, leaves too few; returns whether it did. kept: what clients hold for as
            long as they like: a request that could not come in beside it is sent away, since waiting would not help,
            and such a run waits aside.
    """

    def __init__(
        self,
        pages: int,
        *,
        rows: int,
        waiting: int,
        taken: Callable[[], int],
        free_up: Callable[[int], bool],
        kept: Callable[[], Kept] = Kept,
    ) -> None:
        self._pages, self._rows, self._most = pages, rows, waiting
        self._taken, self._free_up, self._kept = taken, free_up, kept
        self._queues: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self.reserved = self.rows = self.running = self.waiting = 0
        self._mean = 2.0  # seconds that a place is held

    def check(self, rows: int, pages: int) -> None:
        """Refuse at once what could not come in later either.

        Raises:
            ApiError: 429, too many wait, or blocks and paused runs leave too little; 400, more than there will ever be.
        """
        within(rows, self._rows, "rows at once")
        if pages > self._pages:
            raise too_large(pages, self._pages)
        if (stuck := self._stuck(rows, pages)) is not None:
            raise stuck
        if self.waiting >= self._most:
            raise busy(f"{self.waiting} requests wait already; try again later.", self.retry)

    def _stuck(self, rows: int, pages: int) -> ApiError | None:
        """The refusal of who could not come in beside what clients hold, however long it waited."""
        kept = self._kept()
        if pages > self._pages - kept.blocks - kept.paused:
            holders = [("Blocks", kept.blocks, "delete some"), ("Paused runs", kept.paused, "resume or stop some")]
            there = [(f"{who} hold {count}", advice) for who, count, advice in holders if count]
            held, advice = (" and ".join(words) for words in zip(*there, strict=True))
            return busy(f"{held} of the {self._pages} pages of the cache, and this may need {pages}: {advice}.", 30)
        if rows > self._rows - kept.rows:
            wanted = f"Paused runs hold {kept.rows} of the {self._rows} rows of a tick, and this needs {rows}"
            return busy(f"{wanted}: resume or stop some.", 30)
        return None

    async def enter(
        self,
        client: str,
        rows: int,
        need: Callable[[], int],
        *,
        giveback: Callable[[], None] = _nothing,
        run: bool = False,
        patient: bool = False,
    ) -> Ticket:
        """A place, as soon as there is one.

        Args:
            need: how many pages, asked when it is one's turn. giveback: undo what ``need`` did, if there is no room.
            run: it is a run, which ``refuse`` lets wait: it goes on when there is a server again.
            patient: never turned away (a run that goes on after a restart).

        Raises:
            ApiError: 429, too many wait; 400, more than there will ever be.
        """
        if not patient:
            pages = 0
            if self._kept() != Kept():
                pages = need()
                giveback()
            self.check(rows, pages)
        entry = Ticket(rows, need, giveback, asyncio.get_running_loop().create_future(), run)
        self._queues.setdefault(client, deque()).append(entry)
        self.waiting += 1
        self.settle()
        try:
            await entry.let_in
            return entry
        except asyncio.CancelledError:
            if entry.since:  # it was let in at the same moment
                self.leave(entry)
            else:
                self._drop(client, entry)
                self.settle()
            raise

    def leave(self, ticket: Ticket) -> None:
        """Give a place back, and let in whoever is next."""
        self.reserved -= ticket.pages
        self.rows -= ticket.rows
        self.running -= 1
        self._mean += 0.1 * (time.monotonic() - ticket.since - self._mean)
        self.settle()

    def refuse(self, error: ApiError) -> None:
        """Send away all requests that wait."""
        waiting = [entry for queue in self._queues.values() for entry in queue]
        for entry in waiting:
            if not entry.run and not entry.let_in.done():
                entry.let_in.set_exception(error)
        self.settle()

    @property
    def spare(self) -> int:
        """Pages that are neither kept for somebody nor taken."""
        return self._pages - self.reserved - self._taken()

    @property
    def retry(self) -> int:
        """After how many seconds a place may be free."""
        return min(60, 1 + round(self._mean * (1 + self.waiting / max(1, self.running))))

    def settle(self) -> None:
        """Let in whoever is next, as long as there is room. To be called, too, when clients hold more."""
        while (found := self._next()) is not None:
            client, entry = found
            if not self._let_in(entry):
                return
            self._queues.move_to_end(client)
            self._drop(client, entry)

    def _next(self) -> tuple[str, Ticket] | None:
        """Whose turn it is: of the client that waits longest the first that is not a run which has to wait aside."""
        for client, queue in self._queues.items():
            for entry in queue:
                if not entry.run or self._stuck(entry.rows, entry.need()) is None:
                    return client, entry
        return None

    def _drop(self, client: str, entry: Ticket) -> None:
        """It waits no longer, if it did."""
        queue = self._queues.get(client)
        if queue is not None and entry in queue:
            queue.remove(entry)
            self.waiting -= 1
            if not queue:
                del self._queues[client]

    def _let_in(self, entry: Ticket) -> bool:
        """Whether the entry is served: let in, or refused for good."""
        if entry.let_in.done():
            return True
        if (refused := self._stuck(entry.rows, 0)) is not None:
            entry.let_in.set_exception(refused)
            return True
        if self.rows + entry.rows > self._rows:
            return False
        pages = entry.need()
        refused = too_large(pages, self._pages) if pages > self._pages else self._stuck(entry.rows, pages)
        if refused is not None:
            entry.giveback()
            entry.let_in.set_exception(refused)
            return True
        short = pages - self.spare
        if short > 0 and not self._free_up(short):
            entry.giveback()
            return False
        entry.pages, entry.since = pages, time.monotonic()
        self.reserved += pages
        self.rows += entry.rows
        self.running += 1
        entry.let_in.set_result(None)
        return True
