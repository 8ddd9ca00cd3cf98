"""Programs that answer much of one text at once, for one request each, on the engine's loop.

Unlike the runs of ``live_runs`` they are not stored: they end with their request. Documents may be blocks that clients
hold, so that what was encoded once is there for the next request.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kvorum.api import Engine
from kvorum.engine.budget import Budget
from kvorum.engine.engine import EngineCore
from kvorum.kv.block import Block
from kvorum.runs.parameters import Value
from kvorum.runs.program import Program
from kvorum.runs.start import Result, arun
from kvorum.sampling.sampling import Sampling
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.client_blocks import ClientBlocks
from kvorum.serve.engine_thread.saved_blocks import about_block
from kvorum.serve.engine_thread.thread import Channel
from kvorum.serve.keys.caller import Caller
from kvorum.serve.keys.spent import Spent
from kvorum.serve.metrics import Metrics
from kvorum.serve.reply_models.blocks import BlockReply
from kvorum.store.events import Event
from kvorum.store.kept_blocks import KeptBlocks


class DocumentBlocks(KeptBlocks):
    """Where a program looks for texts that are encoded: among the blocks that clients hold, in place of files.

    ``owner``: whose blocks these are. ``texts``: the documents of the request, by the names of their blocks. ``keep``:
    whether what is encoded now is held too. ``found`` are the blocks of the documents, ``loaded`` how many tokens were
    there.
    """

    def __init__(self, blocks: ClientBlocks, texts: Mapping[str, str], keep: bool, owner: str) -> None:
        self._blocks, self._texts, self._keep, self._owner = blocks, texts, keep, owner
        self.found: dict[str, BlockReply] = {}
        self.loaded = 0

    def load(
        self, engine: EngineCore, before: Sequence[int], ids: Sequence[int], name: str, label: str = ""
    ) -> Block | None:
        """The block of ``ids`` behind ``before``, if a client holds it."""
        held = self._blocks.encoded(before, ids, self._owner)
        if held is None:
            return None
        self.found[name] = about_block(held)
        self.loaded += len(ids)
        return held.block

    def load_begun(
        self, engine: EngineCore, before: Sequence[int], ids: Sequence[int], name: str, label: str = ""
    ) -> Block | None:
        """None: of what rows begin with, nothing is held."""
        return None

    def save_beginning(
        self, engine: EngineCore, before: Sequence[int], block: Block, length: int, label: str = ""
    ) -> None:
        """Nothing: a client holds documents, and not what rows begin with."""

    def save(self, engine: EngineCore, before: Sequence[int], block: Block, label: str = "") -> None:
        """Hold a block for later requests, if this one asks for that."""
        if self._keep and block.name in self._texts:
            self.found[block.name] = about_block(
                self._blocks.keep(self._texts[block.name], before, block.seal(), self._owner)
            )


@dataclass(slots=True)
class FanOut:
    """What a request asks of a program: at most ``rows`` rows at once, ``tokens`` of text and ``row_tokens`` a row."""

    program: Program
    prompt: str
    params: Mapping[str, Value]
    texts: Mapping[str, str]
    keep: bool
    rows: int
    tokens: int
    row_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """How it ended: the run's result, and the blocks of the documents, by name."""

    result: Result
    blocks: Mapping[str, BlockReply]
    loaded: int


@dataclass(slots=True, eq=False)
class FanOuts:
    """Runs such programs for any number of requests at a time."""

    engine: Engine
    admission: Admission
    blocks: ClientBlocks
    metrics: Metrics

    async def run(self, ask: FanOut, caller: Caller, channel: Channel[Event | Done]) -> None:
        """Tell ``channel`` each event of the run, then how it ended."""
        try:
            await self._run(ask, caller, channel)
        finally:  # what a program leaves in cycles would hold pages until a later collection
            asyncio.get_running_loop().call_soon(gc.collect)

    async def _run(self, ask: FanOut, caller: Caller, channel: Channel[Event | Done]) -> None:
        if ask.keep:
            self.blocks.room_for(len(ask.texts))
        spent = Spent(caller)

        def hear(event: Event) -> None:
            spent.hear(event)
            channel.put(event)

        began, pool = time.monotonic(), self.engine.pool
        row = pool.pages_for(ask.row_tokens) + 2
        text = pool.pages_for(ask.tokens) + 4 + 2 * len(ask.texts)
        rows = max(1, min(ask.rows, (pool.pages - text) // (2 * row)))  # fewer where the cache is small
        ticket = await self.admission.enter(caller.turn, rows, lambda: text + rows * row)
        try:
            self.metrics.queued.observe(time.monotonic() - began)
            kept = DocumentBlocks(self.blocks, ask.texts, ask.keep, caller.owner)
            result = await arun(
                self.engine,
                ask.program,
                ask.prompt,
                workers=rows,
                budget=Budget(),
                sampling=ask.sampling,
                seed=ask.seed,
                listener=hear,
                kept=kept,
                **ask.params,  # type: ignore[arg-type]
            )
            channel.put(Done(result, kept.found, kept.loaded))
        finally:
            self.admission.leave(ticket)
