"""The engine: a model, its page pool, and ``forward``, the one contract on which everything else is built."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kvorum.attention.copies import Copies
from kvorum.attention.plan import Plan, Planner
from kvorum.attention.registry import choose, lacks_tap
from kvorum.attention.tick import Tick
from kvorum.attention.triton.attention import TritonAttention
from kvorum.backends.local.device import cache_dtype
from kvorum.engine.budget import Ledger
from kvorum.engine.owners import Owners, Tapped
from kvorum.engine.row import Cost, Output, Row, check, check_lengths, check_pool, each, last_of_each
from kvorum.engine.scheduler import Batcher
from kvorum.errors import BadRequest, EmptyRow, OutOfPages
from kvorum.kv import Block, CacheShape, PagePool, Span
from kvorum.kv.edit import compact
from kvorum.kv.imitate import imitate
from kvorum.models import seam
from kvorum.models.rope import ModelShape, probe
from kvorum.models.runners.graphs import StaticDecoder, capture_cuda
from kvorum.models.runners.lean import LeanDecoder

if TYPE_CHECKING:
    pass


class EngineCore:
    """One model with one KV cache. Not thread-safe: use it from one thread, any number of coroutines.

    Args:
        model: a loaded Hugging Face causal language model; its dtype and device are kept.
        tokenizer: its tokenizer, needed for anything with text.
        kv_tokens: how many tokens the cache holds; fixed.
        kv_dtype: what keys and values are stored in; "auto" is what the model computes in; on a CPU "float16" too,
            in half the memory of float32.
        page_size: tokens per page.
        prefill_chunk: a lone row longer than this goes through in parts of this size.
        seed: the default seed of sampling.
        name: how traces call the model. weights: how its weights are held ("exact", or the name of a fast format).
        attention: "auto" takes the Triton kernels on a GPU and the native ones on a CPU, where they are installed and
            cover the model; "reference" plain torch; "triton" or "native" those kernels or an error.
        graphs: on a GPU, replay ticks of one token per row as CUDA graphs.

    Raises:
        UnsupportedModel: the model cannot be exact over views; the message says why.
        BadRequest, MissingExtra: the attention asked for is not there, or does not cover the model.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        kv_tokens: int = 65536,
        kv_dtype: str | torch.dtype = "auto",
        page_size: int = 16,
        prefill_chunk: int = 512,
        seed: int = 0,
        name: str = "",
        weights: str = "exact",
        attention: str = "auto",
        graphs: bool = True,
    ) -> None:
        if prefill_chunk < 1:
            raise BadRequest(f"prefill_chunk={prefill_chunk} must be at least 1.")
        self.model = model
        self.tokenizer = tokenizer
        self.shape: ModelShape = probe(model)
        weight = next(model.parameters())
        self.dtype = self._compute_dtype(weight)
        self.pool = PagePool(
            [CacheShape(layer.kv_heads, layer.k_dim, layer.v_dim) for layer in self.shape.layers],
            kv_tokens,
            page_size=page_size,
            dtype=cache_dtype(kv_dtype, self.dtype, weight.device),
            device=weight.device,
        )
        self.prefill_chunk = min(prefill_chunk, self.shape.max_tokens or prefill_chunk)
        self.seed = seed
        self.name = name or type(model).__name__
        self.weights = weights
        self.ledger = Ledger()
        self.batcher = Batcher(self)
        self._rotaries = [layer.rotary for layer in self.shape.layers]
        # A copy in a narrower cache would be rounded once more than what it stands for.
        self._planner = Planner(copies=Copies(self.pool, self._rotaries) if self.pool.dtype == self.dtype else None)
        heads = [layer.q_heads for layer in self.shape.layers]
        self._fast = choose(attention, self.pool, self._rotaries, heads, self.dtype)
        self._lean = LeanDecoder.of(model, self.shape)
        self._static = self._choose_static(graphs)

    @staticmethod
    def _compute_dtype(weight: Tensor) -> torch.dtype:
        return weight.dtype if weight.dtype.is_floating_point else torch.float32

    def about(self) -> dict[str, Any]:
        """What a trace says of the engine: all that has a part in how its numbers are rounded and counted."""
        return {
            "name": self.name,
            "dtype": str(self.dtype).removeprefix("torch."),
            "kv_dtype": str(self.pool.dtype).removeprefix("torch."),
            "weights": self.weights,
            "kv_tokens": self.pool.pages * self.pool.page_size,
            "page_size": self.pool.page_size,
            "prefill_chunk": self.prefill_chunk,
        }

    # -- blocks ------------------------------------------------------------------------------------------------

    def block(self, name: str = "") -> Block:
        """A fresh, empty, open block."""
        return Block(self.pool, name)

    def compact(self, items: Sequence[Block | Span], into: Block) -> None:
        """Append the tokens of ``items`` to the open block ``into``: K rotated once to its new index, V copied.

        The sources stay as they are.

        Raises:
            SealedBlock, OutOfPages, ViewError: nothing was written.
        """
        check_pool(into, self.pool)
        written = compact(items, into, self._rotaries)
        self.ledger.kv_written += written * self.pool.bytes_per_token

    def imitate(self, block: Block, kind: str, *, seed: int = 0, name: str = "") -> Block:
        """A new sealed block as long as ``block`` that holds nothing of it: a control for what a reader takes from it.

        ``kind`` is "zeroed" (keys and values 0) or "random" (normal, with the moments of each feature).

        Raises:
            UnknownName, BadRequest, OutOfPages, ForeignBlock: nothing was written.
        """
        check_pool(block, self.pool)
        made = self.block(name or f"{kind} {block.name}")
        imitate(block, made, kind, self._rotaries, seed)
        self.ledger.kv_written += len(made) * self.pool.bytes_per_token
        return made

    # -- forward -----------------------------------------------------------------------------------------------

    def forward(
        self,
        rows: Sequence[Row],
        *,
        hidden: bool = False,
        every: bool = False,
        costs: Sequence[Cost] | None = None,
        owners: Owners | None = None,
    ) -> Output:
        """One tick: append each row's tokens to the last block of its view and return the logits of its last token.

        In every layer all rows' keys and values are written before any row attends, so rows see each other's tokens
        of this tick in the blocks that their views hold; inside its own block a row is causal. A lone row longer than
        ``prefill_chunk`` goes through in parts, which changes nothing.

        Args:
            rows: what to append where. hidden: also return the last hidden states after the final norm.
            every: also return the logits of every new token. costs: how the ledger counts each row's tokens; without
                it a single id is decoded and several are prefill.
            owners: who wrote which tokens; also return whose keys each row's last token attends to.

        Raises:
            ViewError (its kinds), OutOfPages: before anything is written. BadRequest: this attention has no tap.
        """
        if not isinstance(rows, Sequence):
            raise BadRequest(f"forward takes a list of rows, not {rows!r}.")
        rows = tuple(rows)
        if owners is not None:
            self.check_tap()
        blocks = self.admit(rows)
        before = [(len(block), block.logits) for block in blocks]
        try:
            if len(rows) == 1 and rows[0].count > self.prefill_chunk:
                return self._chunked(rows[0], hidden, every, costs, owners)
            output, _, _ = self.tick(rows, hidden=hidden, every=every, costs=costs, owners=[owners] * len(rows))
            return output
        except BaseException:  # an interrupt too must leave the blocks as they were
            for block, (length, logits) in zip(blocks, before, strict=True):
                block.truncate(length)
                block.logits = logits
            raise

    def check_tap(self, every: int = 1) -> int:
        """``every``, of a tap in every so many-th tick. Raises BadRequest where that cannot be."""
        if every < 1:
            raise BadRequest(f"tap={every} must be a number of ticks, or 0 for none.")
        if (lack := lacks_tap(self._fast)) is not None:
            raise lack
        return every

    def _chunked(
        self, row: Row, hidden: bool, every: bool, costs: Sequence[Cost] | None, owners: Owners | None
    ) -> Output:
        logits: list[Tensor] = []
        last: Output | None = None
        decoded = (costs[0].decoded or 0) if costs else 0
        for start in range(0, row.count, self.prefill_chunk):
            piece = row.part(start, start + self.prefill_chunk)
            cost, mine = [Cost(decoded if start == 0 else 0)], [owners if start + piece.count == row.count else None]
            last, _, _ = self.tick((piece,), hidden=hidden, every=every, costs=cost, owners=mine)
            if every and last.every is not None:
                logits.append(last.every[0])
        assert last is not None
        return Output(last.logits, last.hidden, (torch.cat(logits),) if every else None, last.attention)

    def admit(self, rows: Sequence[Row]) -> list[Block]:
        """Check that a tick of these rows can be, and return the blocks it writes to. Raises what ``forward`` does."""
        if not rows:
            raise EmptyRow("A tick needs at least one row.")
        blocks = check(rows, self.pool, self.shape.vocab, self.shape.hidden)
        check_lengths(rows, blocks, self.shape.max_positions, self.shape.max_tokens)
        pages = sum(block.pages_needed(row.count) for block, row in zip(blocks, rows, strict=True))
        if pages > self.pool.free:
            gc.collect()  # blocks that only a reference cycle holds
        if pages > self.pool.free:
            size = self.pool.page_size
            raise OutOfPages(
                f"The tick needs {pages} pages ({pages * size} token slots) and {self.pool.free} of {self.pool.pages} "
                "are free: drop views or blocks that are no longer used, or load with a larger kv_tokens."
            )
        return blocks

    def tick(
        self,
        rows: Sequence[Row],
        *,
        hidden: bool = False,
        every: bool | Sequence[bool] = False,
        costs: Sequence[Cost] | None = None,
        owners: Sequence[Owners | None] = (),
    ) -> tuple[Output, Plan, float]:
        """Run admitted rows: the output, the plan and the seconds. On an error the blocks keep the new tokens; the
        caller takes them back. ``every`` may be said row by row; a row without has its last token's logits there.
        ``owners``: of each row, where its attention is tapped."""
        started = time.perf_counter()
        for row in rows:
            own = row.view.own
            assert own is not None
            own.append(row.token_ids)
        counts = [row.count for row in rows]
        plan = self._planner.plan([row.view for row in rows], counts, copied=not any(owners))
        wanted = [n if whole else 1 for n, whole in zip(counts, each(every, len(rows)), strict=True)]
        ends = torch.tensor(counts).cumsum(0) - 1
        lasts = torch.tensor(wanted).cumsum(0) - 1
        index = ends if sum(wanted) == len(rows) else last_of_each(counts, wanted)
        ids, embeds = self._inputs(rows)
        tapped = Tapped(rows, owners, self.pool) if any(owners) else None
        result = None if self._static is None or ids is None else self._static.forward(plan, ids, hidden)
        if result is None:
            tap = None if tapped is None else tapped.tap
            tick = Tick(plan, self.pool, self._rotaries, tap) if self._fast is None else self._fast.tick(plan, tap)
            forward = partial(seam.call, self.model) if self._lean is None else self._lean.call
            where = index.to(self.pool.device)
            result = forward(input_ids=ids, inputs_embeds=embeds, tick=tick, logits_index=where, hidden=hidden)
        logits, states, whole = result.logits, result.hidden, None
        if every is True or (every and any(every)):
            whole = torch.split(logits, wanted)
            logits, states = logits[lasts], None if states is None else states[lasts]
        output = Output(logits, states, whole, None if tapped is None else tapped.seen())
        for row, line in zip(rows, logits, strict=True):
            if (own := row.view.own) is not None:
                own.logits = line
        if self.pool.device.type == "cuda":
            torch.cuda.synchronize(self.pool.device)  # the seconds are those of the work, not of its launch
        seconds = time.perf_counter() - started
        self.ledger.add(self._cost(rows, costs, plan, seconds))
        return output, plan, seconds

    def _choose_static(self, graphs: bool) -> StaticDecoder | None:
        """Decoding by CUDA graphs, where the attention can."""
        if not graphs or self.pool.device.type != "cuda" or not isinstance(self._fast, TritonAttention):
            return None
        return StaticDecoder(partial(seam.call, self.model), self._fast, self.model, capture_cuda())

    def _inputs(self, rows: Sequence[Row]) -> tuple[Tensor | None, Tensor | None]:
        device = self.pool.device
        if all(row.embeds is None for row in rows):
            return torch.tensor([token for row in rows for token in row.token_ids], device=device), None
        embed = self.model.get_input_embeddings()  # type: ignore[operator]
        parts = [
            embed(torch.tensor(row.token_ids, device=device))
            if row.embeds is None
            else row.embeds.to(device, self.dtype)
            for row in rows
        ]
        return None, torch.cat(parts).detach()

    def _cost(self, rows: Sequence[Row], costs: Sequence[Cost] | None, plan: Plan, seconds: float) -> Ledger:
        ledger = Ledger(ticks=1, seconds=seconds)
        size = self.pool.bytes_per_token
        ledger.kv_read, ledger.kv_written = plan.read * size, plan.tokens * size
        for at, row in enumerate(rows):
            ledger.add((costs[at] if costs else Cost()).of(row))
        return ledger
