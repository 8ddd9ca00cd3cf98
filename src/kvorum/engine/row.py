"""Rows: what goes into a tick, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kvorum.kv import View


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """New tokens for the open end of a view: ``ids``, or ``embeds`` ``[tokens, hidden]`` for latent steps."""

    view: View
    ids: Sequence[int] | None = None
    embeds: Tensor | None = None

    @property
    def count(self) -> int:
        """How many tokens the row appends."""
        if self.embeds is not None:
            return len(self.embeds)
        return 0 if self.ids is None else len(self.ids)

    def part(self, start: int, stop: int) -> Row:
        """The same row with its new tokens ``start`` to ``stop`` only."""
        return Row(
            self.view,
            None if self.ids is None else self.ids[start:stop],
            None if self.embeds is None else self.embeds[start:stop],
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """How the ledger counts a row's new tokens: ``decoded`` of its ids were sampled, the rest is prefill.

    None: a single id is decoded, several are prefill. Embeddings are latent steps whatever this says.
    """

    decoded: int | None = None


@dataclass(frozen=True, eq=False)
class Output:
    """What a tick returns, in the order of its rows.

    ``logits`` ``[rows, vocab]``: of each row's last token, fetched when they are read. When asked for, ``hidden``
    ``[rows, hidden]``: its last hidden state after the final norm; ``every``: per row, the logits ``[tokens, vocab]``
    of all its tokens; ``attention``: per row that has owners, whose keys its last token attends to: shares
    ``[layers, owners.names]``, means over the heads.
    """

    fetch: Callable[[], Tensor]
    """Fetches the logits of every wanted token ``[wanted, vocab]``."""
    lasts: Tensor | None = None
    """Which of the wanted are the last tokens of the rows; None: all of them."""
    hidden: Tensor | None = None
    pieces: tuple[slice, ...] | None = None
    """Which of the wanted belong to each row, where every token's logits were asked for."""
    attention: tuple[Tensor | None, ...] | None = None

    @cached_property
    def logits(self) -> Tensor:
        """Logits ``[rows, vocab]`` of each row's last token."""
        return self.fetch() if self.lasts is None else self.fetch()[self.lasts]

    @cached_property
    def every(self) -> tuple[Tensor, ...] | None:
        """Logits ``[tokens, vocab]`` of each row's new tokens, or None where only the last ones were asked for."""
        if self.pieces is None:
            return None
        logits = self.fetch()
        return tuple(logits[piece] for piece in self.pieces)

    def part(self, start: int, stop: int, *, every: bool, attention: bool) -> Output:
        """The output of rows ``start`` to ``stop``, with every token's logits and their attention or without."""
        whole = self  # its logits are fetched once for all parts

        def fetch() -> Tensor:
            return whole.logits[start:stop] if pieces is None else whole.fetch()

        pieces = self.pieces[start:stop] if every and self.pieces is not None else None
        lasts = None if pieces is None else torch.tensor([piece.stop - 1 for piece in pieces])
        seen = self.attention[start:stop] if attention and self.attention is not None else None
        return Output(fetch, lasts, None if self.hidden is None else self.hidden[start:stop], pieces, seen)
