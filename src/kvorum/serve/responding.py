"""Responses that are being made, so that a request may end another one's, or add to what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TypeVar

from kvorum.jsontypes import Json

T = TypeVar("T")


class Told:
    """What has been told of a response that nobody needs to wait for: its events as they are sent, in their order."""

    def __init__(self, owner: str) -> None:
        self.owner, self.over = owner, False
        self._events: list[str] = []
        self._news = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether nothing has been told."""
        return not self._events

    def add(self, event: str) -> None:
        """Tell one more."""
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        """There are no more."""
        self.over = True
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def behind(self, number: int) -> AsyncGenerator[str, None]:
        """Those behind event ``number`` (-1: all), and what is told from now on until the end."""
        at = number + 1
        while True:
            while at < len(self._events):
                yield self._events[at]
                at += 1
            if self.over:
                return
            await self._news.wait()


@dataclass(slots=True, eq=False)
class Responding:
    """One of them: ``stopped()`` says that it is to end, ``over`` that it has, with ``body`` as its object.

    ``owner``: whose it is. ``run``: the run of the program that makes it, "" for the model's own. ``deleted``: it is
    not to be stored any more.
    """

    owner: str
    run: str = ""
    deleted: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    body: dict[str, Json] = field(default_factory=dict)
    _end: bool = False
    _waits: asyncio.Task[None] | None = None

    def stopped(self) -> bool:
        """Whether it is to end."""
        return self._end

    def stop(self) -> None:
        """Have it end now, though it waits for its turn or for a word."""
        self._end = True
        if self._waits is not None:
            self._waits.cancel()

    async def until_stopped(self, source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """What ``source`` gives until it is told to stop, which cancels the step that is waited for and closes it."""
        while not self.stopped():
            task = self._waits = asyncio.current_task()
            try:
                found = await anext(source)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if not self.stopped() or task is None or task.uncancel():
                    raise
                return
            finally:
                self._waits = None
            yield found
