"""The engine's core: a backend, its page pool, and ``forward``, the one contract on which everything else is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kvorum.backends.backend import Backend
from kvorum.engine.executor import Executor
from kvorum.engine.grammars import Grammars
from kvorum.engine.owners import Owners
from kvorum.engine.rereading import apart, forget_rows, patch_rows
from kvorum.engine.row import CheckedRow, Cost, Output, Row
from kvorum.engine.scheduler import Scheduler
from kvorum.engine.speculation.draft_model import DraftModel
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.kv import Block, Span, View
from kvorum.kv.block import check_pool, unchanged_on_error
from kvorum.kv.derived_blocks import begin_imitation, compact
from kvorum.models.adapter import Adapter
from kvorum.models.same_vocabulary import check_same_vocabulary


class EngineCore:
    """One model with one KV cache. Not thread-safe: use it from one thread, any number of coroutines.

    Args:
        backend: what computes. tokenizer: the model's, needed for anything with text.
        prefill_chunk: a lone row longer than this goes through in parts of this size.
        seed: the default seed of sampling. name: how traces call the model.
        speculate: whether tokens that are likely to come are computed ahead; None: where that changes no bit.

    Raises:
        BadRequest: ``speculate=True`` where it could.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Any = None,
        *,
        prefill_chunk: int = 512,
        seed: int = 0,
        name: str = "",
        speculate: bool | None = None,
    ) -> None:
        self.backend = backend
        self.tokenizer = tokenizer
        lack = backend.lacks_speculation() if speculate is not False else None
        if speculate and lack is not None:
            raise lack
        self.executor = Executor(backend, prefill_chunk, speculate=speculate is not False and lack is None)
        self.scheduler = Scheduler(self.executor)
        self.pool = self.executor.pool
        self.ledger = self.executor.ledger
        """What all ticks and copies of this engine have cost."""
        self.shape = backend.shape
        self.dtype: torch.dtype = backend.dtype
        self.seed = seed
        self.name = name
        self.unused: Sequence[str] = ()
        """What of the model's files is not known and was left out."""
        self.adapter: Adapter | None = None
        """What was merged into the model's weights."""

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a text: the generation configuration's and the tokenizer's."""
        own = getattr(self.tokenizer, "eos_token_id", None)
        return self.backend.ends if own is None else self.backend.ends | {own}

    @property
    def speculates(self) -> bool:
        """Whether tokens that are likely to come are computed ahead. No token changes by it."""
        return self.executor.speculation is not None

    def draft_by(self, other: EngineCore) -> None:
        """Let a smaller model say what may come, too: ``other`` gives its model away and is not used any more.

        Only where that is worth its time, by how often it was right; no token changes by it.

        Raises:
            BadRequest: this engine does not speculate, or the tokenizers are not the same; the message says where.
        """
        if self.executor.speculation is None:
            raise self.backend.lacks_speculation() or BadRequest(
                "A draft model says what may come, and this engine was loaded without speculation; leave one out."
            )
        check_same_vocabulary(self.tokenizer, self.name, other.tokenizer, other.name)
        self.executor.speculation.draft = DraftModel(other.backend, self.shape, self.ends)

    @cached_property
    def grammars(self) -> Grammars:
        """Grammars compiled for this model's vocabulary."""
        return Grammars(self.tokenizer, self.shape.vocab, self.ends)

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a lone row that go through in one tick; a longer row takes several."""
        return self.executor.prefill_chunk

    @prefill_chunk.setter
    def prefill_chunk(self, tokens: int) -> None:
        self.executor.prefill_chunk = tokens

    def about(self) -> dict[str, Json]:
        """What a trace says of the engine: all that has a part in how its numbers are rounded and counted."""
        cache = self.backend.cache
        return {
            "name": self.name,
            "dtype": str(self.dtype).removeprefix("torch."),
            "kv_dtype": str(cache.dtype).removeprefix("torch."),
            **self.backend.about(),
            "kv_tokens": cache.slots,
            "page_size": cache.page_size,
            "prefill_chunk": self.prefill_chunk,
            **({"unused": list(self.unused)} if self.unused else {}),
            **({"adapter": self.adapter.about()} if self.adapter else {}),
        }

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
        written = compact(items, into, self.backend.carry)
        self.ledger.kv_written += written * self.pool.bytes_per_token

    def imitate(self, block: Block, kind: str, *, seed: int = 0) -> Block:
        """A new sealed block as long as ``block`` that holds nothing of it: a control for what a reader takes from it.

        ``kind`` is "zeroed" (keys and values 0) or "random" (normal, with the moments of each feature).

        Raises:
            UnknownName, BadRequest, OutOfPages, ForeignBlock: nothing was written.
        """
        check_pool(block, self.pool)
        made, count = self.block(f"{kind} {block.name}"), len(block)
        begin_imitation(block, made, kind)
        self.backend.imitate(kind, seed, block.table.slot_tensor(0, count), made.table.slot_tensor(0, count))
        self.ledger.kv_written += count * self.pool.bytes_per_token
        return made.seal()

    def patch(self, block: Block, before: View, tokens: Iterable[int]) -> Block:
        """A copy of ``block`` in which ``tokens`` are read again behind ``before``; the others are as they are.

        What is read again has the keys and values of a fresh forward in the new context, the rest those of where it was
        written: ``range(k)`` for the first k, those that ``deviation`` finds, all of them for a full prefill. Costs one
        tick for the chosen tokens, as prefill, and a copy. The new block is open; the old one stays as it is.

        Raises:
            SpanOutOfRange: a token that the block has not. BadRequest: a latent step, which has no id.
            ViewError, OutOfPages: nothing was written.
        """
        check_pool(block, self.pool)
        rows, spans = patch_rows(block, before, tokens, self.block)
        self._read(rows)
        made = self.block(f"patched {block.name}")
        self.compact(spans, made)
        return made

    def deviation(self, block: Block, before: View) -> Tensor:
        """How far each token of ``block`` is from what it would be behind ``before``: ``[tokens]``, 0 where nothing is.

        The squared distance of its values over all layers and heads, from those of a full read there, which this costs:
        it tells what a choice of tokens could know at best, and is no cheap way to choose.
        """
        check_pool(block, self.pool)
        count = len(block)
        rows, (fresh,) = patch_rows(block, before, range(count), self.block) if count else ([], (Span(block),))
        self._read(rows)
        return apart(self.backend, block, fresh.block)

    def forget(self, view: View, start: int, end: int) -> View:
        """The view without positions ``start`` to ``end``, and what follows encoded again: they are *forgotten*.

        ``View.splice`` and ``View.gap`` only *hide* them: what was written behind goes on carrying what it read there.
        Costs a tick for what follows, as prefill. What followed stands in fresh blocks; a block of somebody else among
        it does not grow with theirs.

        Raises:
            SpanOutOfRange, ViewError, OutOfPages: nothing was written. BadRequest: a latent step follows.
        """
        rows, made = forget_rows(view, start, end, self.block)
        self._read(rows)
        return made

    def _read(self, rows: Sequence[Row]) -> None:
        """Rows of known tokens: in one tick, or where they are long one behind the other, which is the same."""
        together = sum(row.count for row in rows) <= self.prefill_chunk
        for some in ([rows] if rows else []) if together else [[row] for row in rows]:
            checked = self.executor.check(some, [Cost(0)] * len(some))
            self.executor.admit(checked)
            if len(checked) == 1:
                self._in_chunks(checked[0], hidden=False)
            else:
                self.executor.run(checked)

    def forward(
        self, rows: Sequence[Row], *, hidden: bool = False, every: bool = False, owners: Owners | None = None
    ) -> Output:
        """One tick: append each row's tokens to the last block of its view and return the logits of its last token.

        In every layer all rows' keys and values are written before any row attends, so rows see each other's tokens
        of this tick in the blocks that their views hold; inside its own block a row is causal. A lone row longer than
        ``prefill_chunk`` goes through in parts, which changes nothing.

        Args:
            rows: what to append where; in the ledger a single id counts as decoded, several as prefill.
            hidden: also return the last hidden states after the final norm.
            every: also return the logits of every new token, and with ``hidden`` its hidden state.
            owners: who wrote which tokens; also return whose keys each row's last token attends to.

        Raises:
            ViewError (its kinds), OutOfPages: before anything is written. BadRequest: this attention has no tap.
        """
        if not isinstance(rows, Sequence):
            raise BadRequest(f"forward takes a list of rows, not {rows!r}.")
        checked = self.executor.check(rows, every=every, owners=owners)
        self.executor.admit(checked)
        if len(checked) == 1 and checked[0].count > self.prefill_chunk:
            return self._in_chunks(checked[0], hidden)
        return self.executor.run(checked, hidden).output

    def _in_chunks(self, row: CheckedRow, hidden: bool) -> Output:
        """Piece by piece, all of it or nothing."""
        with unchanged_on_error([row.own]):
            outputs = [self.executor.run((piece,), hidden).output for piece in row.chunks(self.prefill_chunk)]
        last = outputs[-1]
        if not row.every:
            return last
        logits = torch.cat([output.fetch() for output in outputs])
        told = [output.states for output in outputs if output.states is not None]
        states = torch.cat(told) if told else None
        return Output(lambda: logits, last.hidden, (slice(0, len(logits)),), last.attention, states)

    def check_tap(self, every: int = 1) -> int:
        """``every``, of a tap in every so many-th tick. Raises BadRequest where that cannot be."""
        if every < 1:
            raise BadRequest(f"tap={every} must be a number of ticks, or 0 for none.")
        if (lack := self.backend.lacks_tap()) is not None:
            raise lack
        return every
