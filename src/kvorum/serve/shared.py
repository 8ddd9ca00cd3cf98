"""What all models of a server have in common: its thread, keys, figures, stores, and how it comes to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from kvorum.serve.engine_thread.block_folder import block_folder
from kvorum.serve.engine_thread.thread import EngineThread
from kvorum.serve.keys.keys import Keys
from kvorum.serve.metrics import Metrics
from kvorum.serve.responding import Responding, Told
from kvorum.serve.settings import ServerSettings
from kvorum.serve.telemetry import Telemetry
from kvorum.store.responses import ResponseStore
from kvorum.store.runs import RunError, Store, StoredEvent


class Shared:
    """One server's. Raises BadRequest where its store cannot be used.

    ``thread``: on which the engines of all models compute, a tick of one at a time. ``responding``: responses that are
    being made; ``told``: the events of those in the background, also of the last that are over. ``held``: unfinished
    runs that cannot go on here, and why. ``replies``: requests that are being replied to; ``streams``: those that watch
    a run. ``ended`` is set when those under way are to end.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings, self.started = settings, time.time()
        self.thread, self.metrics = EngineThread(), Metrics()
        self.telemetry = Telemetry(settings.telemetry, settings.tick_share)
        self.keys = Keys(settings.keys)
        self.store = Store(settings.database or settings.store, settings.replica)
        self.blocks = block_folder(settings.block_folder)
        self.responses = ResponseStore(settings.database or settings.store)
        self.responding: dict[str, Responding] = {}
        self.told: dict[str, Told] = {}
        self.held: dict[str, RunError] = {}
        self.replies = self.streams = 0
        self.draining, self.ended = False, asyncio.Event()

    def ticked(self, rows: int, tokens: int, seconds: float) -> None:
        """Count a tick of any model: its rows, its tokens, and how long it took."""
        self.metrics.ticked(rows, tokens, seconds)
        self.telemetry.ticked(rows, tokens, seconds)

    async def stored(self, run: str, after: int) -> Sequence[StoredEvent]:
        """A page of a run's events behind number ``after``; empty: there are no more. Raises StoreError."""
        return await asyncio.to_thread(self.store.events, run, after + 1, 512)
