"""The engine's thread. The engine is single-threaded: it lives on a thread with an event loop of its own, so that HTTP,
on the main thread's loop, stays responsive while a tick computes.

Work goes over with ``call`` and comes back through its result or a ``Channel``. Nothing else crosses. What a server
changes for the whole process and in its engines, for the sake of both threads, is put back at its end (``serving``).
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, ParamSpec, TypeVar

from kvorum.api import Engine

T = TypeVar("T")
P = ParamSpec("P")

SWITCH = 0.0005
"""Seconds after which a thread that computes in Python lets the other have its turn, so that a token is sent while the
next tick is prepared."""
CHUNK = 256
"""Tokens of a long prompt that go through in one tick, so that others wait no longer than that takes."""


class Channel(Generic[T]):
    """What one coroutine of the engine's loop sends to one of the HTTP loop, in order."""

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread
        self._unread: deque[T] = deque()
        self._ready = asyncio.Event()
        self._error: BaseException | None = None
        self.closed = False

    # on the engine's loop

    def put(self, value: T) -> None:
        """Send ``value``; nothing happens where the channel is closed already."""
        if not self.closed:
            self._unread.append(value)
            self._thread.wake(self._ready)

    def close(self, error: BaseException | None = None) -> None:
        """Send nothing more; ``error`` is raised to the reader."""
        if not self.closed:
            self.closed, self._error = True, error
            self._thread.wake(self._ready)

    # on the HTTP loop

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            while self._unread:
                yield self._unread.popleft()
            if self.closed and not self._unread:
                if self._error is not None:
                    raise self._error
                return
            self._ready.clear()
            if not self._unread and not self.closed:
                await self._ready.wait()


class EngineThread:
    """A thread with an event loop on which everything of an engine runs."""

    loop: asyncio.AbstractEventLoop
    """The engine's loop, once it has begun."""
    _http: asyncio.AbstractEventLoop
    _thread: threading.Thread

    def __init__(self) -> None:
        self._woken: list[asyncio.Event] = []  # by this turn of the engine's loop; of the engine's loop
        self._end = asyncio.Event()  # of the engine's loop
        self._arrived = False  # whether a call came since the last tick; of the engine's loop

    def start(self) -> None:
        """Begin, from the HTTP loop."""
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._http, self.loop = asyncio.get_running_loop(), runner.get_loop()
        self._thread = threading.Thread(target=self._live, args=(runner,), name="kvorum-engine", daemon=True)
        self._thread.start()

    def _live(self, runner: asyncio.Runner) -> None:
        with runner:  # which cancels at its end what is under way
            runner.run(self._end.wait())

    @property
    def alive(self) -> bool:
        """Whether the thread runs; where it has ended, nothing is computed any more."""
        return self._thread.is_alive()

    async def call(self, do: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``do(...)`` returns, awaited on the engine's loop; cancelling this cancels it."""
        if not self.alive:
            raise RuntimeError("The engine's thread has ended.")

        async def work() -> T:
            return await do(*args, **kwargs)

        self.loop.call_soon_threadsafe(self._arrive)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self.loop))

    def post(self, do: Callable[[], None]) -> None:
        """Do something on the engine's loop, soon."""
        if self.alive:
            self.loop.call_soon_threadsafe(do)

    def wake(self, event: asyncio.Event) -> None:
        """Set an event of the HTTP loop: with one call for all that are set in this turn of the engine's loop.

        A call for each of a tick's tokens would have both threads contend for the interpreter; so the HTTP loop works
        while the next tick computes.
        """
        if not self._woken:
            self.loop.call_soon(self._deliver)
        self._woken.append(event)

    def _deliver(self) -> None:
        woken, self._woken = self._woken, []
        if woken and not self._http.is_closed():
            self._http.call_soon_threadsafe(_set_all, woken)

    def between(self) -> bool:
        """What an engine does between two ticks: what was said is sent before the next one, not behind it, so that the
        HTTP loop works while that computes. True: a call has come meanwhile (``Scheduler.between``)."""
        if self._woken:
            self._deliver()
        arrived, self._arrived = self._arrived, False
        return arrived

    def _arrive(self) -> None:
        self._arrived = True

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Within it nothing is computed: the thread stands between two ticks."""
        stands, go_on = asyncio.Event(), threading.Event()

        def stand() -> None:
            self.wake(stands)
            self._deliver()
            go_on.wait()

        self.post(stand)
        try:
            await stands.wait()
            yield
        finally:
            go_on.set()

    async def stop(self, patience: float | None = None) -> bool:
        """Cancel what is under way and end the thread. ``patience``: wait only so many seconds for the tick that it
        computes now. Returns whether it has ended."""
        self.post(self._end.set)
        await asyncio.to_thread(self._thread.join, patience)
        return not self.alive


def _set_all(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()


@contextmanager
def serving_process() -> Iterator[None]:
    """Set the process up for a server."""
    switch, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    sys.setswitchinterval(SWITCH)
    if not frozen:
        gc.freeze()  # the model's modules are not looked at again each time a run's leavings are collected
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()  # else native modules report everything that is left when the process ends
        sys.setswitchinterval(switch)


@contextmanager
def serving(engine: Engine, ticked: Callable[[int, int, float], None], between: Callable[[], bool]) -> Iterator[None]:
    """Set ``engine`` up for a server; ``ticked`` hears of each tick: rows, tokens, seconds; ``between`` is what is done
    between two ticks."""
    chunk, scheduler = engine.prefill_chunk, engine.scheduler
    before = scheduler.listener, scheduler.between
    engine.prefill_chunk, scheduler.listener, scheduler.between = min(chunk, CHUNK), ticked, between
    try:
        yield
    finally:
        engine.prefill_chunk = chunk
        scheduler.listener, scheduler.between = before
