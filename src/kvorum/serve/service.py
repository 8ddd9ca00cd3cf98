"""One model of a server, its parts put together: what computes on the engine's thread, and what texts mean to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

from kvorum.api import Engine
from kvorum.engine.detokenizer import decode
from kvorum.engine.text import Messages, chat, encode, thinking_switches
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.runs.prefix_cache import PrefixCache
from kvorum.sampling.grammar import Grammar
from kvorum.serve.choice_format import LogprobFormat
from kvorum.serve.engine_thread.admission import Admission, Kept
from kvorum.serve.engine_thread.client_blocks import ClientBlocks
from kvorum.serve.engine_thread.decider import Decider
from kvorum.serve.engine_thread.embedder import Embedder
from kvorum.serve.engine_thread.fan_out import Done, FanOut, FanOuts
from kvorum.serve.engine_thread.generator import DecodeRequest, Generator, Piece
from kvorum.serve.engine_thread.live_runs import LiveRuns
from kvorum.serve.engine_thread.run_recorder import RunNews
from kvorum.serve.engine_thread.saved_blocks import SavedBlocks
from kvorum.serve.engine_thread.thread import CHUNK, Channel, serving
from kvorum.serve.errors import ApiError, too_long
from kvorum.serve.infill import infill_marks
from kvorum.serve.keys.caller import Caller
from kvorum.serve.shared import Shared
from kvorum.serve.thoughts import thinks_already
from kvorum.serve.tool_calls import ToolCalls
from kvorum.store.events import Event
from kvorum.store.runs import StoredEvent
from kvorum.wording import plural

T = TypeVar("T")


class Service:
    """One model of a server: its engine with runs, blocks, prefix cache and limits; ``shared`` it has with the others.

    ``name``: of the model in requests. ``saved``: its blocks in the store. ``elsewhere`` tells which other model has an
    owner's block.
    """

    def __init__(
        self,
        engine: Engine,
        shared: Shared,
        name: str,
        saved: SavedBlocks,
        elsewhere: Callable[[str, str], str | None],
    ) -> None:
        self.engine, self.shared, self.name = engine, shared, name
        self.settings, self.thread, self.metrics = shared.settings, shared.thread, shared.metrics
        self.keys, self.store, self.responses = shared.keys, shared.store, shared.responses
        self.responding, self.ended = shared.responding, shared.ended
        self.logprobs, self.calls = LogprobFormat(engine), ToolCalls(engine)
        self.infill = infill_marks(engine.tokenizer, engine.shape.vocab)
        limits, metrics = shared.settings.limits, shared.metrics
        self.listening: Counter[str] = Counter()
        """How many replies are being made of a run, which is stopped when nobody waits for any."""
        self.prefixes = PrefixCache(
            engine, int(engine.pool.pages * limits.cached_share), room=lambda pages: self.admission.spare >= pages
        )
        self.admission = Admission(
            engine.pool.pages,
            rows=limits.rows,
            waiting=limits.waiting,
            taken=lambda: self.prefixes.pages + self.blocks.pages,
            free_up=self.prefixes.free_up,
            kept=lambda: Kept(self.blocks.pages, *self.runs.paused),
        )
        self.blocks = ClientBlocks(engine, self.admission, saved, limits.blocks, elsewhere)
        self.generator = Generator(engine, self.admission, self.prefixes, self.blocks, metrics)
        self.fan_outs = FanOuts(engine, self.admission, self.blocks, metrics)
        self.decider = Decider(engine, self.admission, self.blocks, metrics, limits.rows)
        self.embedder = Embedder(engine, self.admission, metrics, limits.rows)
        about = engine.about()
        kinds = ":".join(str(about[name]) for name in ("dtype", "kv_dtype", "weights"))
        held_as = f"{engine.backend.fingerprint}:{kinds}:{min(engine.prefill_chunk, CHUNK)}"
        self.runs = LiveRuns(
            engine,
            shared.store,
            self.admission,
            self.prefixes,
            metrics,
            held_as,
            shared.telemetry,
            shared.keys.resumed,
            shared.held,
        )
        self._life = ExitStack()

    @property
    def in_use(self) -> str:
        """What would be lost if the model were let go now, beside what can be computed again; "": nothing."""
        if self.runs.live:
            return plural(len(self.runs.live), "run")
        if self.admission.running or self.admission.waiting:
            return "requests"
        return "kept blocks that are not saved" if self.blocks.unsaved else ""

    async def begin(self) -> None:
        """Set the engine up for a server, on its loop, before anything is asked of it."""
        self._life.enter_context(serving(self.engine, self.shared.ticked, self.shared.thread.between))

    def put_back(self) -> None:
        """The opposite: nothing is asked of the engine any more."""
        self._life.close()

    async def end(self) -> None:
        """Put it back and let go of its memory, on the engine's loop."""
        self.put_back()
        self.engine.backend.close()

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
        limits, positions = self.settings.limits, self.engine.shape.longest
        most = min(limits.default_tokens, limits.tokens)
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

    def pieces(self, ask: DecodeRequest, caller: Caller) -> AsyncGenerator[Piece, None]:
        """What a request hears; closing this ends it and frees its pages."""
        return self._heard(lambda channel: self.generator.answer(ask, caller, channel))

    def fan_out(self, ask: FanOut, caller: Caller) -> AsyncGenerator[Event | Done, None]:
        """What a program that answers much of one text tells, and how it ended; closing this ends it."""
        return self._heard(lambda channel: self.fan_outs.run(ask, caller, channel))

    async def _heard(self, tell: Callable[[Channel[T]], Awaitable[None]]) -> AsyncGenerator[T, None]:
        channel: Channel[T] = Channel(self.thread)

        async def telling() -> None:
            try:
                await tell(channel)
            except asyncio.CancelledError:
                self.metrics.cancelled.inc()
                raise
            except Exception as error:  # no name outlives this: its frames hold blocks
                channel.close(error)
            finally:
                channel.close()

        work = asyncio.ensure_future(self.thread.call(telling))
        try:
            async for told in channel:
                yield told
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def watch(self, run: str, after: int) -> AsyncGenerator[StoredEvent | None, None]:
        """The events behind number ``after`` of a run that is under way here, as they are stored; None: its status has
        changed.

        Ends when the run is over. Raises StoreError.
        """
        news: Channel[RunNews] = Channel(self.thread)
        await self.thread.call(self.runs.watch, run, news)
        try:
            async for stored, changed in news:
                while after + 1 < stored and (events := await self.shared.stored(run, after)):
                    for event in events:
                        yield event
                    after = events[-1][0]
                if changed:
                    yield None
        finally:
            self.thread.post(news.close)
