"""A server's parts, put together: the engine's thread with everything on it, the store, the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from kvorum.api import Engine
from kvorum.engine.detokenizer import decode
from kvorum.engine.text import Messages, chat, encode, thinking_switches
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.runs.prefix_cache import PrefixCache
from kvorum.sampling.grammar import Grammar
from kvorum.serve.choice_format import LogprobFormat
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.client_blocks import ClientBlocks
from kvorum.serve.engine_thread.decider import Decider
from kvorum.serve.engine_thread.embedder import Embedder
from kvorum.serve.engine_thread.fan_out import Done, FanOut, FanOuts
from kvorum.serve.engine_thread.generator import DecodeRequest, Generator, Piece
from kvorum.serve.engine_thread.live_runs import LiveRuns
from kvorum.serve.engine_thread.run_recorder import RunNews
from kvorum.serve.engine_thread.thread import CHUNK, Channel, EngineThread, serving
from kvorum.serve.errors import ApiError, stopping, too_long
from kvorum.serve.infill import infill_marks
from kvorum.serve.keys.caller import Caller
from kvorum.serve.keys.keys import Keys
from kvorum.serve.metrics import Metrics
from kvorum.serve.responding import Responding
from kvorum.serve.settings import ServerSettings
from kvorum.serve.telemetry import Telemetry
from kvorum.serve.thoughts import thinks_already
from kvorum.serve.tool_calls import ToolCalls
from kvorum.store.events import Event
from kvorum.store.responses import ResponseStore
from kvorum.store.run_claims import RENEW
from kvorum.store.runs import Record, Store, StoredEvent, StoreError

_PAGE = 512
"""Stored events that are read at a time."""
_ASK = 0.25
"""Seconds between looks at a run that another server goes on with."""

log = logging.getLogger("kvorum.serve")


class Service:
    """What the routes share: one engine with its runs, blocks, prefix cache, store and limits."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.engine, self.settings, self.name = engine, settings, engine.name.rstrip("/").rpartition("/")[2]
        self.started = time.time()
        self.thread, self.metrics = EngineThread(), Metrics()
        self.telemetry = Telemetry(settings.telemetry, settings.tick_share)
        self.keys = Keys(settings.keys)
        self.logprobs, self.calls = LogprobFormat(engine), ToolCalls(engine)
        self.infill = infill_marks(engine.tokenizer, engine.shape.vocab)
        self.store = Store(settings.database or settings.store, settings.replica)
        self.responses = ResponseStore(settings.database or settings.store)
        self.responding: dict[str, Responding] = {}
        limits = settings.limits
        self.prefixes = PrefixCache(
            engine, int(engine.pool.pages * limits.cached_share), room=lambda pages: self.admission.spare >= pages
        )
        self.admission = Admission(
            engine.pool.pages,
            rows=limits.rows,
            waiting=limits.waiting,
            taken=lambda: self.prefixes.pages + self.blocks.pages,
            free_up=self.prefixes.free_up,
            kept=lambda: self.blocks.pages,
        )
        self.blocks = ClientBlocks(engine, self.admission, settings.blocks or settings.store / "blocks", limits.blocks)
        self.generator = Generator(engine, self.admission, self.prefixes, self.blocks, self.metrics)
        self.fan_outs = FanOuts(engine, self.admission, self.blocks, self.metrics)
        self.decider = Decider(engine, self.admission, self.blocks, self.metrics, limits.rows)
        self.embedder = Embedder(engine, self.admission, self.metrics, limits.rows)
        about = engine.about()
        kinds = ":".join(str(about[name]) for name in ("dtype", "kv_dtype", "weights"))
        held_as = f"{engine.backend.fingerprint}:{kinds}:{min(engine.prefill_chunk, CHUNK)}"
        shared = (self.admission, self.prefixes, self.metrics)
        self.runs = LiveRuns(engine, self.store, *shared, held_as, self.telemetry, self.keys.resumed)
        self.replies = 0  # requests that are being replied to
        self.streams = 0  # those that watch a run
        self.draining, self.ended = False, asyncio.Event()
        self._gauges()

    def _gauges(self) -> None:
        gauge, pool, admission = self.metrics.gauge, self.engine.pool, self.admission
        recorder = self.runs.recorder
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
        gauge("kvorum_store_trouble", "1 while the store of runs takes nothing", lambda: recorder.trouble is not None)

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """The life of ``app``: it begins with the runs that were under way, and leaves such to the next server."""
        with (
            contextlib.closing(self.store),
            contextlib.closing(self.responses),
            serving(self.engine, self._ticked),
        ):
            self.thread.start()
            claims = asyncio.create_task(self._claim())
            try:
                await self._go_on()
                yield
            finally:
                claims.cancel()
                await asyncio.gather(claims, return_exceptions=True)
                await self.thread.stop()

    def _ticked(self, rows: int, tokens: int, seconds: float) -> None:
        self.metrics.ticked(rows, tokens, seconds)
        self.telemetry.ticked(rows, tokens, seconds)

    async def _go_on(self) -> None:
        """Go on with runs that nobody holds: those of a server that has ended or died."""
        model = self.runs.fingerprint if self.store.shared else None
        taken = await asyncio.to_thread(self.store.claims.take, model)
        records = await asyncio.to_thread(self.store.of, taken) if taken else []
        left = [(record, await asyncio.to_thread(self.events, record.id)) for record in records]
        await self.thread.call(self.runs.resume, left)

    async def _claim(self) -> None:
        """Say again and again which runs are this server's, and take over what is nobody's any more."""
        while self.store.shared:
            await asyncio.sleep(RENEW)
            try:
                await asyncio.to_thread(self.store.claims.renew)
                if not self.draining and self.runs.recorder.trouble is None:
                    await self._go_on()
            except StoreError as error:  # whoever waits for a run to be stored learns it from there
                log.warning("claims of runs could not be renewed: %s", error)

    async def drain(self, hurry: Callable[[], bool]) -> None:
        """Take nothing new on, send away who waits, give replies the time to end, and end those that have not.

        ``hurry``: whether to wait no longer.
        """
        self.draining = True
        if self.thread.alive:
            await self.thread.call(self.runs.send_away, stopping())
        latest = time.monotonic() + self.settings.drain
        while self.replies > self.streams and time.monotonic() < latest and not hurry():
            await asyncio.sleep(0.02)
        self.ended.set()

    def events(self, run: str) -> list[Event]:
        """The trace of a run, from the store. To be called from any thread. Raises StoreError."""
        return [json.loads(body) for _, _, body in self.store.events(run)]

    # -- text, on the HTTP loop --------------------------------------------------------------------------------

    async def encode(self, text: str, param: str = "prompt") -> list[int]:
        """Text to ids, with what the tokenizer puts before any text. Raises BadRequest, ApiError, which names the field
        ``param``."""
        self.check_length(text, param=param)
        return self.ids(await asyncio.to_thread(encode, self.engine.tokenizer, text, special=True), param)

    async def chat(self, messages: Messages, thinking: bool | None = None, **variables: Json) -> list[int]:
        """A conversation to ids; ``thinking``: whether the model is told to think first; ``variables``: what the chat
        template is told besides. Raises ApiError."""
        tokenizer = self.engine.tokenizer
        self.check_length(*(str(message.get("content") or "") for message in messages))
        try:
            switches = await asyncio.to_thread(thinking_switches, tokenizer, thinking)
            given = {**variables, **switches}
            ids = await asyncio.to_thread(lambda: chat(tokenizer, messages, moment=None, **given))
        except BadRequest as error:
            raise ApiError(400, str(error), param="messages") from error
        return self.ids(ids)

    def thinks_already(self, ids: Sequence[int]) -> bool:
        """Whether a prompt ends behind a tag behind which the model thinks."""
        return thinks_already(decode(self.engine.tokenizer, ids[-8:], special=True))

    def ids(self, given: Sequence[int], param: str = "prompt") -> list[int]:
        """Ids as they are. Raises ApiError where the model has no such ids, or they are too many."""
        vocab, longest, most = self.engine.shape.vocab, self.engine.shape.longest, self.settings.limits.prompt_tokens
        if not all(0 <= token < vocab for token in given):
            raise ApiError(400, f"Token ids lie from 0 to {vocab - 1}.", param=param)
        if len(given) > most:
            message = f"A prompt of {len(given)} tokens is longer than the {most} that this server takes."
            raise ApiError(400, message, code="context_length_exceeded", param=param)
        if longest is not None and len(given) > longest:
            raise too_long(f"The prompt has {len(given)} tokens", longest)
        return list(given)

    def check_length(self, *texts: str, param: str = "prompt") -> None:
        """Raises ApiError for more characters than a prompt within the limits can have."""
        characters = sum(map(len, texts))
        if characters > 16 * self.settings.limits.prompt_tokens:
            raise ApiError(400, f"A prompt of {characters} characters is too long for this server.", param=param)

    @property
    def context(self) -> int:
        """How many tokens a prompt and its reply may have together, as far as the model and its cache go."""
        there = self.engine.pool.pages * self.engine.pool.page_size
        return min(there, self.engine.shape.longest or there)

    def reply_tokens(self, prompt: int) -> int:
        """How many tokens a chat reply may have that says nothing of it, behind a prompt of so many."""
        most, positions = self.settings.limits.default_tokens, self.engine.shape.longest
        return most if positions is None else max(1, min(most, positions - prompt))

    async def prepare(self, grammar: Grammar, param: str) -> None:
        """Compile a grammar before the request that needs it waits for a place, beside all that goes on.

        Raises:
            ApiError: it cannot be compiled, or not within the limits. ``param``: the field that it comes from.
        """
        try:
            await self.thread.call(self.engine.grammars.prepare, grammar)
        except BadRequest as error:
            raise ApiError(400, str(error), param=param) from error

    # -- decoding ----------------------------------------------------------------------------------------------

    async def pieces(self, ask: DecodeRequest, caller: Caller) -> AsyncGenerator[Piece, None]:
        """What a request hears; closing this ends it and frees its pages."""
        channel: Channel[Piece] = Channel(self.thread)
        work = asyncio.ensure_future(self.thread.call(self.generator.answer, ask, caller, channel))
        try:
            async for piece in channel:
                yield piece
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def fan_out(self, ask: FanOut, caller: Caller) -> AsyncGenerator[Event | Done, None]:
        """What a program that answers much of one text tells, and how it ended; closing this ends it."""
        channel: Channel[Event | Done] = Channel(self.thread)
        work = asyncio.ensure_future(self.thread.call(self.fan_outs.run, ask, caller, channel))
        try:
            async for told in channel:
                yield told
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def elsewhere(self, record: Record | None) -> bool:
        """Whether a run that is not over is another server's."""
        return record is not None and self.store.shared and not record.over and record.id not in self.runs.live

    async def _watch_store(self, run: str, after: int) -> AsyncGenerator[StoredEvent | None, None]:
        """What another server stores of a run; the store is asked again and again, so that no news can be missed."""
        status = None
        while (record := await asyncio.to_thread(self.store.get, run)) is not None:
            while after + 1 < record.events:
                for event in await asyncio.to_thread(self.store.events, run, after + 1, _PAGE):
                    yield event
                    after = event[0]
            if record.status != status:
                status = record.status
                yield None
            if record.over:
                return
            await asyncio.sleep(_ASK)

    async def watch(self, run: str, after: int) -> AsyncGenerator[StoredEvent | None, None]:
        """A run's events behind number ``after``, as they are stored; None: its status has changed.

        Ends when the run is over. Raises StoreError.
        """
        if self.elsewhere(await asyncio.to_thread(self.store.get, run)):
            async for told in self._watch_store(run, after):
                yield told
            return
        news: Channel[RunNews] = Channel(self.thread)
        await self.thread.call(self.runs.watch, run, news)
        try:
            async for stored, changed in news:
                while after + 1 < stored:
                    events = await asyncio.to_thread(self.store.events, run, after + 1, _PAGE)
                    for event in events:
                        yield event
                    after = events[-1][0] if events else stored
                if changed:
                    yield None
        finally:
            self.thread.post(news.close)
