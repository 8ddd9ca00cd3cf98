"""A server's parts, put together: its models, its runs, and their life."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from kvorum.serve.engine_thread.thread import serving_process
from kvorum.serve.errors import stopping
from kvorum.serve.loaded_models import LoadedModels
from kvorum.serve.model_source import ModelSource
from kvorum.serve.service import Service
from kvorum.serve.settings import ServerSettings
from kvorum.serve.shared import Shared
from kvorum.serve.stored_runs import StoredRuns

_LAST_TICK = 5.0
"""Seconds for which the tick under way is waited for when the server is to end, before replies and after; then other
processes that compute it are ended, for they may stand still."""


class Server:
    """Models, the first of which is loaded at once, and what they share. Raises BadRequest."""

    def __init__(self, sources: Sequence[ModelSource], settings: ServerSettings) -> None:
        self.settings, self.shared = settings, Shared(settings)
        self.models = LoadedModels(sources, self.shared, settings.models_loaded)
        self.runs = StoredRuns(self.shared, self.models)
        self._gauges()

    @property
    def first(self) -> Service:
        """The model that is asked where a request names none, while it is loaded."""
        return self.models.loaded[self.models.first]

    def _gauges(self) -> None:
        def add(name: str, text: str, read: Callable[[Service], float]) -> None:
            self.shared.metrics.gauge(name, text, lambda: sum(map(read, list(self.models.loaded.values()))))

        add("kvorum_requests_running", "Requests and runs that have a place", lambda of: of.admission.running)
        add("kvorum_requests_waiting", "Requests and runs that wait for one", lambda of: of.admission.waiting)
        add("kvorum_rows_running", "Rows of a tick that they make together", lambda of: of.admission.rows)
        add("kvorum_runs_live", "Runs that are not over", lambda of: len(of.runs.live))
        add("kvorum_pages", "Pages of the cache", lambda of: of.engine.pool.pages)
        add("kvorum_pages_free", "Pages that nothing lies in", lambda of: of.engine.pool.unused)
        add("kvorum_pages_reserved", "Pages kept for those who have a place", lambda of: of.admission.reserved)
        add("kvorum_pages_prefixes", "Pages of prompts kept for later requests", lambda of: of.prefixes.pages)
        add("kvorum_prefix_tokens_asked", "Prompt tokens of requests", lambda of: of.prefixes.asked)
        add("kvorum_prefix_tokens_shared", "Those that were in the cache", lambda of: of.prefixes.hits)
        gauge, models = self.shared.metrics.gauge, self.models
        gauge("kvorum_store_trouble", "1 while the store of runs takes nothing", lambda: models.trouble is not None)
        gauge("kvorum_models_loaded", "Models that are loaded", lambda: len(models.loaded))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The server's life: it begins with the runs that were under way, and leaves such to the next server."""
        thread, models = self.shared.thread, self.models
        with contextlib.closing(self.shared.store), contextlib.closing(self.shared.responses), serving_process():
            thread.start()
            claims = asyncio.create_task(self.runs.claim())
            try:
                await thread.call(self.first.begin)
                await self.runs.go_on()
                yield
            finally:
                claims.cancel()
                await asyncio.gather(claims, return_exceptions=True)
                if not await thread.stop(_LAST_TICK):
                    backends = [service.engine.backend for service in models.loaded.values()]
                    await asyncio.gather(*(asyncio.to_thread(backend.close) for backend in backends))
                    await thread.stop()
                for service in models.loaded.values():
                    service.put_back()

    async def drain(self, hurry: Callable[[], bool]) -> None:
        """Take nothing new on, send away who waits, give replies the time to end, and end those that have not.

        ``hurry``: whether to wait no longer.
        """
        shared = self.shared
        shared.draining = True
        services = list(self.models.loaded.values()) if shared.thread.alive else []
        sent = [asyncio.create_task(shared.thread.call(one.runs.send_away, stopping())) for one in services]
        if sent:
            await asyncio.wait(sent, timeout=_LAST_TICK)
        latest = time.monotonic() + self.settings.drain
        while shared.replies > shared.streams and time.monotonic() < latest and not hurry():
            await asyncio.sleep(0.02)
        for each in sent:  # a tick that still lasts is ended with the thread, and so is who waits for it
            each.cancel()
        shared.ended.set()
