"""The models of a server: loaded when first asked for, held while they are used, let go when another needs the room.

A request holds the models that it uses until it has been replied to. A model that somebody holds, that has a run under
way, or blocks that are in the cache alone, is never let go.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Literal

import psutil
import torch

from kvorum.models.catalogue import available_memory, out_of_memory
from kvorum.serve.engine_thread.saved_blocks import SavedBlocks
from kvorum.serve.errors import busy, lost, unloadable
from kvorum.serve.model_source import ModelSource
from kvorum.serve.service import Service
from kvorum.serve.shared import Shared

PATIENCE = 60.0
"""Seconds for which a request waits until a model that is in use can be let go."""
_LOOK = 0.05

log = logging.getLogger("kvorum.serve")


class LoadedModels:
    """Of the HTTP loop. ``most``: how many may be loaded at a time."""

    def __init__(self, sources: Sequence[ModelSource], shared: Shared, most: int | None = None) -> None:
        self.sources: Mapping[str, ModelSource] = {source.name: source for source in sources}
        self._shared, self._most = shared, most or len(self.sources)
        self.loaded: dict[str, Service] = {}
        self.failed: dict[str, str] = {}
        """Why a model could not be loaded when it was last tried."""
        self._holders: Counter[str] = Counter()
        self._used: dict[str, float] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._order = asyncio.Lock()
        self.loaded[self.first] = self._service(sources[0])

    def _service(self, source: ModelSource) -> Service:
        return Service(source.load(), self._shared, source.name, self.saved_blocks(source.name), self.block_owner)

    @property
    def first(self) -> str:
        """The name of the model that is asked where a request names none."""
        return next(iter(self.sources))

    def named(self, name: str) -> str:
        """``name`` where there is such a model, loaded or not; else the first's."""
        return name if name in self.sources else self.first

    def saved_blocks(self, name: str) -> SavedBlocks:
        """A model's blocks in the store; the first has those of no model here, too."""
        others = [other for other in self.sources if other != name]
        return SavedBlocks(self._shared.blocks, name, others, name == self.first)

    @property
    def trouble(self) -> str | None:
        """Why the store of runs takes nothing, if it does not."""
        troubles = (service.runs.recorder.trouble for service in list(self.loaded.values()))
        return next((trouble for trouble in troubles if trouble is not None), None)

    @property
    def lost(self) -> str | None:
        """Why a loaded model computes nothing, if its processes are gone or stand still."""
        return next((why for one in list(self.loaded.values()) if (why := one.engine.backend.trouble())), None)

    def status(self, name: str) -> Literal["loaded", "loading", "unloaded"]:
        """``loaded``, ``loading`` or ``unloaded``, as llama-server's router has it."""
        return "loaded" if name in self.loaded else "loading" if name in self._loading else "unloaded"

    def block_owner(self, block: str, owner: str) -> str | None:
        """The loaded model that has a block of that id and owner."""
        found = (name for name, service in list(self.loaded.items()) if service.blocks.has(block, owner))
        return next(found, None)

    # -- holding -----------------------------------------------------------------------------------------------

    async def hold(self, name: str) -> Service:
        """The model of that name, which stays loaded until ``release``; whoever asks meanwhile waits for the same load.

        Raises:
            ApiError: 503, it cannot be loaded, or its processes are gone; 429, all that could make room for it are in
                use.
        """
        self._holders[name] += 1
        try:
            if name not in self.loaded:
                task = self._loading.get(name)
                if task is None:
                    task = self._loading[name] = asyncio.create_task(self._load(self.sources[name]))
                    task.add_done_callback(lambda done: self._done(name, done))
                await asyncio.shield(task)
            service = self.loaded[name]
            if (why := service.engine.backend.trouble()) is not None:
                raise lost(why)
            return service
        except BaseException:
            self.release(name)
            raise

    def release(self, name: str) -> None:
        """Hold it no longer."""
        self._holders[name] -= 1
        self._used[name] = time.monotonic()

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        del self._loading[name]
        error = None if task.cancelled() else task.exception()
        if error is None:
            self.failed.pop(name, None)
        else:
            self.failed[name] = str(error)

    async def _load(self, source: ModelSource) -> None:
        async with self._order:
            service = await self._made(source)
            await self._shared.thread.call(service.begin)
            self.loaded[source.name] = service
            log.info("%s is loaded", source.name)

    async def _made(self, source: ModelSource) -> Service:
        while True:
            await self._room(source)
            try:
                # For a GPU transformers changes torch's default dtype meanwhile, for all threads.
                async with self._shared.thread.standing() if torch.cuda.is_available() else nullcontext():
                    return await asyncio.to_thread(self._service, source)
            except Exception as error:
                if not out_of_memory(error):
                    log.exception("%s could not be loaded", source.name)
                    raise unloadable(source.name, str(error) or type(error).__name__) from error
                why, idle = str(error), self._idle()
            if idle is None:
                raise unloadable(source.name, why or "there is too little memory")
            await self._let_go(idle)

    # -- letting go --------------------------------------------------------------------------------------------

    async def _room(self, source: ModelSource) -> None:
        """Let go of models until there is room for one more. Raises ApiError."""
        latest = time.monotonic() + PATIENCE
        # what models give back that are let go is no more than all that this process holds
        _check_room(source, available_memory() + psutil.Process().memory_info().rss)
        while True:
            full = len(self.loaded) >= self._most
            if not full and (source.needs <= available_memory() or not self.loaded):
                break
            idle = self._idle()
            if idle is not None:
                await self._let_go(idle)
            elif time.monotonic() > latest:
                used = ", ".join(f"{name} by {service.in_use or 'requests'}" for name, service in self.loaded.items())
                raise busy(f"{source.name} is not loaded, and what could make room for it is in use: {used}.", 10)
            else:
                await asyncio.sleep(_LOOK)
        _check_room(source, available_memory())

    def _idle(self) -> str | None:
        """The model that was used longest ago of those that can be let go."""
        free = [name for name, service in self.loaded.items() if not self._holders[name] and not service.in_use]
        return min(free, key=lambda name: self._used.get(name, 0.0), default=None)

    async def _let_go(self, name: str) -> None:
        service = self.loaded.pop(name)
        await self._shared.thread.call(service.end)
        del service
        await asyncio.to_thread(_collect)
        log.info("%s was let go", name)


class Held:
    """The models that one request holds."""

    def __init__(self, models: LoadedModels) -> None:
        self._models, self._names = models, list[str]()

    async def hold(self, name: str) -> Service:
        """The model of that name, until ``release``. Raises ApiError as ``LoadedModels.hold``."""
        service = await self._models.hold(name)
        self._names.append(name)
        return service

    def release(self) -> None:
        """Hold them no longer."""
        while self._names:
            self._models.release(self._names.pop())


def _check_room(source: ModelSource, free: int) -> None:
    if free < source.needs:
        why = f"it needs about {source.needs >> 20} MiB of memory, and {free >> 20} are to be had"
        raise unloadable(source.name, why)


def _collect() -> None:
    """Free what stands in circles, also of what was there when the server began (``serving_process``), and give it back
    to the system: glibc keeps what lies between things that stay."""
    frozen = gc.get_freeze_count()
    if frozen:
        gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
