"""A server's parts, put together: the engine's thread with everything on it, the store, the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import ParamSpec, TypeVar

from kvorum.api import Engine
from kvorum.engine.text import chat, encode
from kvorum.errors import BadRequest
from kvorum.programs import REGISTRY
from kvorum.runs.prefix_cache import PrefixCache
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.client_blocks import ClientBlocks
from kvorum.serve.engine_thread.generator import DecodeRequest, Generator, Piece
from kvorum.serve.engine_thread.live_runs import LiveRuns
from kvorum.serve.engine_thread.run_recorder import RunUpdate
from kvorum.serve.engine_thread.thread import Channel, EngineThread
from kvorum.serve.errors import ApiError, unstored
from kvorum.serve.logprob_format import LogprobFormat
from kvorum.serve.metrics import Metrics
from kvorum.serve.process_settings import CHUNK, serving
from kvorum.serve.reply_models import HealthReply
from kvorum.serve.settings import Settings
from kvorum.store.events import Event
from kvorum.store.runs import Record, Store, StoreError

T = TypeVar("T")
P = ParamSpec("P")

_PAGE = 512
"""Stored events that are read at a time."""
_UNREAD = 8192
"""Events that a watcher may leave unread before it is sent away."""


class Service:
    """What the routes share: one engine with its runs, blocks, prefix cache, store and limits."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings, self.name = engine, settings, engine.name.rstrip("/").rpartition("/")[2]
        self.programs = {**REGISTRY, **{program.name: program for program in settings.programs}}
        self.started = time.time()
        self.thread, self.metrics = EngineThread(), Metrics()
        self.logprobs = LogprobFormat(engine)
        self.store = Store(settings.store)
        limits = settings.limits
        self.prefixes = PrefixCache(
            engine, int(engine.pool.pages * limits.cached), room=lambda pages: self.admission.spare >= pages
        )
        self.admission = Admission(
            engine.pool.pages,
            rows=limits.rows,
            waiting=limits.waiting,
            taken=lambda: self.prefixes.pages + self.blocks.pages,
            free_up=self.prefixes.free_up,
            kept=lambda: self.blocks.pages,
        )
        self.blocks = ClientBlocks(engine, self.admission, settings.store / "blocks", limits.blocks)
        self.generator = Generator(engine, self.admission, self.prefixes, self.blocks, self.metrics)
        about = engine.about()
        kinds = ":".join(str(about[name]) for name in ("dtype", "kv_dtype", "weights"))
        self.runs = LiveRuns(
            engine,
            self.store,
            self.admission,
            self.thread,
            self.metrics,
            f"{engine.backend.fingerprint}:{kinds}:{min(engine.prefill_chunk, CHUNK)}",
            self.prefixes,
            self.programs,
        )
        self.streams = 0
        self._gauges()

    def _gauges(self) -> None:
        gauge, pool, admission = self.metrics.gauge, self.engine.pool, self.admission
        gauge("kvorum_requests_running", "Requests and runs that have a place", lambda: admission.running)
        gauge("kvorum_requests_waiting", "Requests and runs that wait for one", lambda: admission.waiting)
        gauge("kvorum_rows_running", "Rows of a tick that they make together", lambda: admission.rows)
        gauge("kvorum_runs_live", "Runs that are not over", lambda: len(self.runs.live))
        gauge("kvorum_pages", "Pages of the cache", lambda: pool.pages)
        gauge("kvorum_pages_free", "Pages that nothing lies in", lambda: pool.unused)
        gauge("kvorum_pages_reserved", "Pages kept for those who have a place", lambda: admission.reserved)
        gauge("kvorum_pages_prefixes", "Pages of prompts kept for later requests", lambda: self.prefixes.pages)
        gauge("kvorum_prefix_tokens_asked", "Prompt tokens of requests", lambda: self.prefixes.asked)
        gauge("kvorum_prefix_tokens_shared", "Those that were in the cache", lambda: self.prefixes.hits)
        gauge("kvorum_store_trouble", "1 while the store of runs takes nothing", lambda: self.runs.trouble is not None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within it the server works; it begins with the runs that were under way, and leaves such to the next one."""
        with contextlib.closing(self.store), serving(self.engine, self.metrics.ticked):
            self.thread.start()
            try:
                left = [(record, self._events(record.id)) for record in self.store.unfinished()]
                await self.thread.call(self.runs.resume, left)
                yield
            finally:
                await self.thread.stop()

    def _events(self, run: str) -> list[Event]:
        return [json.loads(body) for _, _, body in self.store.events(run)]

    # -- text, on the HTTP loop --------------------------------------------------------------------------------

    async def encode(self, text: str) -> list[int]:
        """Text to ids, with what the tokenizer puts before any text. Raises BadRequest, ApiError."""
        self.check_length(text)
        return self._checked(await asyncio.to_thread(encode, self.engine.tokenizer, text, special=True))

    async def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """A conversation to ids. Raises BadRequest, ApiError."""
        self.check_length(*(message["content"] for message in messages))
        try:
            return self._checked(await asyncio.to_thread(chat, self.engine.tokenizer, messages))
        except (BadRequest, ApiError):
            raise
        except Exception as error:  # what the model's own template raises
            raise ApiError(
                400, f"The model's chat template does not take these messages: {error}", param="messages"
            ) from error

    def ids(self, given: Sequence[int]) -> list[int]:
        """Ids as they are. Raises ApiError where the model has no such ids, or they are too many."""
        vocab = self.engine.shape.vocab
        if not all(0 <= token < vocab for token in given):
            raise ApiError(400, f"Token ids lie from 0 to {vocab - 1}.", param="prompt")
        return self._checked(list(given))

    def check_length(self, *texts: str) -> None:
        """Raises ApiError for more characters than a prompt within the limits can have."""
        characters = sum(map(len, texts))
        if characters > 16 * self.settings.limits.prompt:
            raise ApiError(400, f"A prompt of {characters} characters is too long for this server.", param="prompt")

    def _checked(self, ids: list[int]) -> list[int]:
        most = self.settings.limits.prompt
        if len(ids) > most:
            raise ApiError(
                400,
                f"A prompt of {len(ids)} tokens is longer than the {most} that this server takes.",
                code="context_length_exceeded",
                param="prompt",
            )
        return ids

    # -- decoding ----------------------------------------------------------------------------------------------

    async def pieces(self, ask: DecodeRequest, client: str) -> AsyncGenerator[Piece, None]:
        """What a request hears; closing this ends it and frees its pages."""
        channel: Channel[Piece] = Channel(self.thread, 2 * len(ask.prompts) * ask.choices * (ask.tokens + 1) + 16)
        work = asyncio.ensure_future(self.thread.call(self.generator.answer, ask, client, channel))
        try:
            async for piece in channel:
                yield piece
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    # -- runs --------------------------------------------------------------------------------------------------

    async def steer(self, do: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``do(...)`` returns on the engine's loop. Raises ApiError, of 503 where the store takes nothing."""
        try:
            return await self.thread.call(do, *args, **kwargs)
        except StoreError as error:
            raise unstored(str(error)) from error

    async def read(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask the store, off the loop. Raises ApiError 503."""
        try:
            return await asyncio.to_thread(ask, *args, **kwargs)
        except StoreError as error:
            raise unstored(str(error)) from error

    async def record(self, run: str) -> Record | None:
        """A run as it is stored. Raises ApiError 503."""
        return await self.read(self.store.get, run)

    async def stop_run(self, run: str) -> None:
        """Stop a run if it is not over."""
        with contextlib.suppress(ApiError):
            await self.thread.call(self.runs.stop, run)

    async def forget(self, run: str) -> None:
        """Delete a run that is over. Raises ApiError 503."""

        async def delete() -> None:
            self.runs.held.pop(run, None)
            self.store.delete(run)

        await self.steer(delete)

    async def watch(self, run: str, after: int) -> AsyncGenerator[RunUpdate, None]:
        """A run's events behind number ``after``, those that are stored and those to come; None: its status changed.

        Ends when the run is over. Raises ApiError 503 where nobody read them for too long.
        """
        found = await self.thread.call(self.runs.watch, run, _UNREAD)
        channel, count = found if found is not None else (None, 2**62)
        try:
            start = after + 1
            while start < count:
                page = await self.read(self.store.events, run, start, min(_PAGE, count - start))
                for event in page:
                    yield event
                if len(page) < _PAGE:
                    break
                start += len(page)
            if channel is not None:
                async for update in channel:
                    if update is None or update[0] > after:
                        yield update
                if channel.overrun:
                    raise ApiError(
                        503, "The events were not read in time; go on behind the last one.", kind="server_error"
                    )
        finally:
            if channel is not None:
                self.thread.post(channel.close)

    # -- about -------------------------------------------------------------------------------------------------

    def health(self) -> HealthReply:
        """How the server is, for ``/health``."""
        limits, pool = self.settings.limits, self.engine.pool
        statuses = [live.status for live in list(self.runs.live.values())]
        return HealthReply(
            status="ok" if self.thread.alive and self.runs.trouble is None else "degraded",
            model=self.name,
            version=version("kvorum"),
            uptime=round(time.time() - self.started, 1),
            trouble=self.runs.trouble,
            limits={
                "workers": limits.workers,
                "ticks": limits.ticks,
                "prompt_tokens": limits.prompt,
                "tokens": limits.tokens,
                "choices": limits.choices,
                "rows": limits.rows,
                "body_bytes": limits.body,
            },
            pages={
                "total": pool.pages,
                "free": pool.unused,
                "prefixes": self.prefixes.pages,
                "page_size": pool.page_size,
            },
            runs={status: statuses.count(status) for status in ("running", "queued", "paused")},
        )


def fresh_seed() -> int:
    """A seed for a request that gave none."""
    return secrets.randbits(31)
