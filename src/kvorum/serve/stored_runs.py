"""Runs of all models: in the store, and live with the model that computes them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import TypeVar

from kvorum.serve.engine_thread.live_runs import LiveRuns
from kvorum.serve.errors import ApiError, conflict
from kvorum.serve.loaded_models import Held, LoadedModels
from kvorum.serve.service import Service
from kvorum.serve.shared import Shared
from kvorum.store.events import Event
from kvorum.store.run_claims import RENEW
from kvorum.store.runs import Record, RunError, StoredEvent, StoreError

_ASK = 0.25
"""Seconds between looks at a run that another server goes on with."""
_AWAY = 1.0
"""The same while the store does not answer."""
_OUTAGE = 600.0
"""Seconds of that after which who watches a run waits no longer."""

log = logging.getLogger("kvorum.serve")
T = TypeVar("T")


class StoredRuns:
    """Of the HTTP loop."""

    def __init__(self, shared: Shared, models: LoadedModels) -> None:
        self._shared, self._models, self._store = shared, models, shared.store

    # -- finding -----------------------------------------------------------------------------------------------

    def live(self, run: str) -> Service | None:
        """The model that computes a run, if it is under way here."""
        return next((service for service in self._models.loaded.values() if run in service.runs.live), None)

    def of(self, record: Record) -> LiveRuns:
        """Whom to ask to pause, stop or forget a run. Raises ApiError 409: nobody is there."""
        named = self._models.loaded.get(str(record.spec.get("model")))
        found = [named] if named is not None else list(self._models.loaded.values())
        live = self.live(record.id)
        if live is None and not found:
            raise conflict("This run is over.")
        return found[0].runs if live is None else live.runs

    def held_why(self, run: str) -> RunError | None:
        """Why an unfinished run does not go on; None: it does, or it is paused or over."""
        live = self.live(run)
        return self._shared.held.get(run) if live is None else live.runs.held_why(run)

    def elsewhere(self, record: Record | None) -> bool:
        """Whether a run that is not over is another server's."""
        return record is not None and self._store.shared and not record.over and self.live(record.id) is None

    def events(self, run: str) -> list[Event]:
        """The trace of a run, from the store. To be called from any thread. Raises StoreError."""
        return [json.loads(body) for _, _, body in self._store.events(run)]

    # -- going on ----------------------------------------------------------------------------------------------

    async def go_on(self) -> None:
        """Go on with runs that nobody holds: those of a server that has ended or died. In a store that servers share,
        with those of models that are loaded here."""
        if not self._store.shared:
            await self._resume(await asyncio.to_thread(self._store.claims.take, None))
            return
        for service in list(self._models.loaded.values()):
            if service.engine.backend.trouble() is not None:  # what it has left is for another server
                continue
            await self._resume(await asyncio.to_thread(self._store.claims.take, service.runs.fingerprint))

    async def _resume(self, taken: Sequence[str]) -> None:
        records = await asyncio.to_thread(self._store.of, taken) if taken else []

        def model(record: Record) -> str:
            return self._models.named(str(record.spec.get("model")))

        for name, some in groupby(sorted(records, key=model), model):
            left = [(record, await asyncio.to_thread(self.events, record.id)) for record in some]
            held = Held(self._models)
            try:
                service = await held.hold(name)
                await self._shared.thread.call(service.runs.resume, left)
            except ApiError as error:  # the model is not to be had: the others' runs go on, and there is a server
                log.warning("runs of %s do not go on: %s", name, error)
                message = f"{str(error).rstrip('.')}. The run goes on with the next server that has the model."
                self._shared.held |= {record.id: {"type": "model_missing", "message": message} for record, _ in left}
            finally:
                held.release()

    async def claim(self) -> None:
        """Say again and again which runs are this server's, and take over what is nobody's any more."""
        while self._store.shared:
            await asyncio.sleep(RENEW)
            try:
                await asyncio.to_thread(self._store.claims.renew)
                if not self._shared.draining and self._models.trouble is None:
                    await self.go_on()
            except StoreError as error:  # whoever waits for a run to be stored learns it from there
                log.warning("claims of runs could not be renewed: %s", error)

    # -- watching ----------------------------------------------------------------------------------------------

    async def _watch_store(self, run: str, after: int, once: bool) -> AsyncGenerator[StoredEvent | None, None]:
        """What is stored of a run that is not computed here: ``once``, or again and again, so that no news of another
        server's can be missed."""
        status = None

        async def news() -> tuple[Record | None, Sequence[StoredEvent]]:
            record = await asyncio.to_thread(self._store.get, run)
            new = record is not None and after + 1 < record.events
            return record, await self._shared.stored(run, after) if new else ()

        while True:
            record, events = await self.when_it_answers(run, news)
            for event in events:
                yield event
            if record is None:
                return
            if events:
                after = events[-1][0]
                continue  # there may be more than a page
            if record.status != status and not once:
                status = record.status
                yield None
            if record.over or once:
                return
            await asyncio.sleep(_ASK)

    async def when_it_answers(self, run: str, read: Callable[[], Awaitable[T]]) -> T:
        """What ``read`` gives for who watches a run: a database that servers share may be restarted meanwhile.

        Raises:
            StoreError: nothing can be read now; of a shared store, for ten minutes.
        """
        since: float | None = None
        while True:
            try:
                return await read()
            except StoreError as error:
                if not self._store.shared:
                    raise
                if since is None:
                    log.warning("run %s is watched further when the store answers: %s", run, error)
                    since = time.monotonic()
                if time.monotonic() - since > _OUTAGE:
                    raise
                await asyncio.sleep(_AWAY)

    async def watch(self, run: str, after: int) -> AsyncGenerator[StoredEvent | None, None]:
        """A run's events behind number ``after``, as they are stored; None: its status has changed.

        Ends when the run is over. Raises StoreError.
        """
        live = self.live(run)
        if live is not None:
            source = live.watch(run, after)
        else:
            record = await self.when_it_answers(run, lambda: asyncio.to_thread(self._store.get, run))
            source = self._watch_store(run, after, once=not self.elsewhere(record))
        async with aclosing(source):
            async for told in source:
                yield told
