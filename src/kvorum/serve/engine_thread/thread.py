"""The engine's thread. The engine is single-threaded: it lives on a thread with an event loop of its own, so that HTTP,
on the main thread's loop, stays responsive while a tick computes.

Work goes over with ``call`` and comes back through its result or a ``Channel``. Nothing else crosses.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SWITCH = 0.0005
"""Seconds after which a thread that computes in Python lets the other have its turn, so that a token is told while the
next tick is prepared."""


class Channel(Generic[T]):
    """What one coroutine of the engine's loop tells one of the HTTP loop, in order.

    Holds at most ``most`` items that nobody has read; then it ends with ``overrun`` set, and its reader may come again.
    """

    def __init__(self, host: EngineHost, most: int = 4096) -> None:
        self._host, self._most = host, most
        self._items: deque[T] = deque()
        self._ready = asyncio.Event()
        self._error: BaseException | None = None
        self.closed = self.overrun = False

    # on the engine's loop

    def put(self, item: T) -> None:
        """Tell ``item``."""
        if self.closed:
            return
        if len(self._items) >= self._most:
            self.overrun = True
            self.close()
            return
        self._items.append(item)
        self._host.wake(self)

    def close(self, error: BaseException | None = None) -> None:
        """There is nothing more to tell; ``error`` is raised to the reader."""
        if not self.closed:
            self.closed, self._error = True, error
            self._host.wake(self)

    # on the HTTP loop

    def arrived(self) -> None:
        """Something was told."""
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            while self._items:
                yield self._items.popleft()
            if self.closed and not self._items:
                if self._error is not None:
                    raise self._error
                return
            self._ready.clear()
            if not self._items and not self.closed:
                await self._ready.wait()


class EngineHost:
    """A thread with an event loop on which everything of an engine runs."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="kvorum-engine", daemon=True)
        self._http: asyncio.AbstractEventLoop | None = None
        self._told: list[Channel[Any]] = []  # written to since the HTTP loop was last woken; of the engine's loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The engine's loop, once it has begun."""
        assert self._loop is not None
        return self._loop

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def start(self) -> None:
        """Begin, from the HTTP loop."""
        self._http, self._loop = asyncio.get_running_loop(), asyncio.new_event_loop()
        sys.setswitchinterval(SWITCH)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether work is done."""
        return self._thread.is_alive()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's loop; cancelling this cancels it."""
        if not self.alive:
            work.close()
            raise RuntimeError("The engine's thread has ended.")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def post(self, do: Callable[..., object], *args: object) -> None:
        """Do something on the engine's loop, soon."""
        if self.alive:
            self.loop.call_soon_threadsafe(do, *args)

    def wake(self, channel: Channel[Any]) -> None:
        """Tell the HTTP loop, once for all that the coroutines of this turn of the engine's loop have told.

        A wake for each of a tick's tokens would have both threads contend for the interpreter; so the HTTP loop works
        while the next tick computes.
        """
        if not self._told:
            self.loop.call_soon(self._deliver)
        self._told.append(channel)

    def _deliver(self) -> None:
        told, self._told = self._told, []
        if self._http is not None and not self._http.is_closed():
            self._http.call_soon_threadsafe(_arrived, told)

    async def stop(self) -> None:
        """Cancel what is under way and end the thread."""
        if not self.alive:
            return
        await self.call(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join)
        self.loop.close()

    async def _cancel_all(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _arrived(channels: list[Channel[Any]]) -> None:
    for channel in channels:
        channel.arrived()
