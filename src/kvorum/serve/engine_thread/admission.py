"""Who may start now: by the pages that a request or run can come to need, and by the rows of a tick.

Everyone is let in with the pages of its worst case, so that what has begun can end. Clients take turns: one that sends
a thousand requests waits behind its own. Within a client the order is that of arrival, and nobody is passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from kvorum.serve.errors import ApiError, busy


@dataclass(slots=True, eq=False)
class Ticket:
    """A place. ``pages`` are kept for its holder, who makes ``rows`` rows of a tick."""

    pages: int
    rows: int
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class _Waiting:
    need: Callable[[], int]
    giveback: Callable[[], None]
    rows: int
    future: asyncio.Future[Ticket]


def too_large(pages: int, there: int) -> ApiError:
    """The refusal of who asks for more pages than there will ever be."""
    return ApiError(
        400,
        f"This could need {pages} pages of the cache and there are {there}: ask for fewer tokens, ticks or workers, or "
        "start the server with a larger --kv-tokens.",
    )


def _nothing() -> None:
    return None


class Admission:
    """Lets requests and runs in, as pages and rows allow. Of the engine's loop.

    Args:
        pages: how many there are for requests and runs. kept: how many clients hold for as long as they like; who could
            not come in beside them is sent away, since waiting would not help. free_up: asked to make room for so many
            more pages where ``taken()``, what is held besides, leaves too few; returns whether it did.
    """

    def __init__(
        self,
        pages: int,
        *,
        rows: int,
        waiting: int,
        taken: Callable[[], int],
        free_up: Callable[[int], bool],
        kept: Callable[[], int] = int,
    ) -> None:
        self._pages, self._rows, self._most = pages, rows, waiting
        self._taken, self._free_up, self._kept = taken, free_up, kept
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self.reserved = self.rows = self.running = self.waiting = 0
        self._mean = 2.0  # seconds that a place is held

    def check(self, rows: int, pages: int) -> None:
        """Refuse at once what could not come in later either.

        Raises:
            ApiError: 429, too many wait, or blocks leave too few pages; 400, more than there will ever be.
        """
        if rows > self._rows:
            raise ApiError(400, f"{rows} rows at once are more than the {self._rows} that this server takes.")
        if pages > self._pages:
            raise too_large(pages, self._pages)
        if pages > self._pages - self._kept():
            raise busy(f"Blocks hold {self._kept()} of the {self._pages} pages of the cache: delete some.", 30)
        if self.waiting >= self._most:
            raise busy(f"{self.waiting} requests wait already; try again later.", self.retry)

    async def enter(
        self,
        client: str,
        rows: int,
        need: Callable[[], int],
        *,
        giveback: Callable[[], None] = _nothing,
        patient: bool = False,
    ) -> Ticket:
        """A place, as soon as there is one.

        Args:
            need: how many pages, asked when it is one's turn. giveback: undo what ``need`` did, if there is no room.
            patient: never turned away (a run that goes on after a restart).

        Raises:
            ApiError: 429, too many wait; 400, more than there will ever be.
        """
        if not patient:
            self.check(rows, self._asked(need, giveback) if self._kept() else 0)
        entry = _Waiting(need, giveback, rows, asyncio.get_running_loop().create_future())
        self._queues.setdefault(client, deque()).append(entry)
        self.waiting += 1
        self.settle()
        try:
            return await entry.future
        except asyncio.CancelledError:
            if entry.future.done() and not entry.future.cancelled() and entry.future.exception() is None:
                self.leave(entry.future.result())
            else:
                self._forget(client, entry)
            raise

    def _asked(self, need: Callable[[], int], giveback: Callable[[], None]) -> int:
        pages = need()
        giveback()
        return pages

    def leave(self, ticket: Ticket) -> None:
        """Give a place back, and let in whoever is next."""
        self.reserved -= ticket.pages
        self.rows -= ticket.rows
        self.running -= 1
        self._mean += 0.1 * (time.monotonic() - ticket.since - self._mean)
        self.settle()

    @property
    def spare(self) -> int:
        """Pages that are neither kept for somebody nor taken."""
        return self._pages - self.reserved - self._taken()

    @property
    def retry(self) -> int:
        """After how many seconds a place may be free."""
        return min(60, 1 + round(self._mean * (1 + self.waiting / max(1, self.running))))

    def _forget(self, client: str, entry: _Waiting) -> None:
        queue = self._queues.get(client)
        if queue is not None and entry in queue:
            queue.remove(entry)
            self.waiting -= 1
            if not queue:
                del self._queues[client]
        self.settle()

    def settle(self) -> None:
        """Let in whoever is next, as long as there is room."""
        while self._queues:
            client, queue = next(iter(self._queues.items()))
            if not self._let_in(queue[0]):
                return
            queue.popleft()
            self.waiting -= 1
            self._queues.move_to_end(client)
            if not queue:
                del self._queues[client]

    def _let_in(self, entry: _Waiting) -> bool:
        """Whether the entry is served: let in, or refused for good."""
        if entry.future.done():
            return True
        if self.rows + entry.rows > self._rows:
            return False
        pages = entry.need()
        if pages > self._pages:
            entry.giveback()
            entry.future.set_exception(too_large(pages, self._pages))
            return True
        short = pages - self.spare
        if short > 0 and not self._free_up(short):
            entry.giveback()
            return False
        ticket = Ticket(pages, entry.rows)
        self.reserved += pages
        self.rows += entry.rows
        self.running += 1
        entry.future.set_result(ticket)
        return True
