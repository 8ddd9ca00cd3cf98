"""Rows: what goes into a tick, as it is given and as it was checked, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from kvorum.engine.budget import Ledger
from kvorum.engine.owners import Owners
from kvorum.kv import Block, View
from kvorum.sampling.matcher import Matcher
from kvorum.sampling.sampling import Draw


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """New tokens for the open end of a view: ``ids``, or ``embeds`` ``[tokens, hidden]`` for latent steps.

    ``every``: the logits of all its tokens are wanted (``Output.every``), not of the last one alone.
    """

    view: View
    ids: Sequence[int] | None = None
    embeds: Tensor | None = None
    every: bool = False

    @property
    def count(self) -> int:
        """How many tokens the row appends."""
        if self.embeds is not None:
            return len(self.embeds)
        return 0 if self.ids is None else len(self.ids)


@dataclass(frozen=True, slots=True)
class Cost:
    """How the ledger counts a row's new tokens: ``decoded`` of its ids were sampled, the rest is prefill.

    None: a single id is decoded, several are prefill. Embeddings are latent steps whatever this says.
    """

    decoded: int | None = None

    def spent(self, count: int, latent: bool) -> Ledger:
        """What the ledger holds of a row of ``count`` tokens."""
        if latent:
            return Ledger(latent=count)
        decoded = min(count == 1 if self.decoded is None else self.decoded, count)
        return Ledger(decoded=decoded, prefill=count - decoded)


@dataclass(slots=True, eq=False)
class CheckedRow:
    """A row that was checked by itself, and what is wanted of it.

    ``own``: the block that it writes to. ``ids``: as the block records them, a latent step as ``LATENT``. ``embeds``:
    ``[tokens, hidden]`` where it is a row of latent steps. ``spent``: how the ledger counts its tokens. ``every``:
    whether all its tokens' logits are wanted. ``owners``: who wrote what it sees, where the attention of its last token
    is tapped. ``draw``: what to draw from its last token, among the ids that its ``matcher`` allows. ``unit``: rows of
    the same number wait for each other, tick by tick; None: nothing is computed ahead of it.
    """

    view: View
    own: Block
    ids: list[int]
    embeds: Tensor | None
    spent: Ledger
    every: bool = False
    owners: Owners | None = None
    draw: Draw | None = None
    matcher: Matcher | None = None
    unit: int | None = None

    @property
    def count(self) -> int:
        """How many tokens it appends."""
        return len(self.ids)

    def part(self, start: int, stop: int, decoded: int) -> CheckedRow:
        """The same row with its tokens ``start`` to ``stop`` only, of which ``decoded`` were sampled."""
        ids = self.ids[start:stop]
        embeds = None if self.embeds is None else self.embeds[start:stop]
        return replace(self, ids=ids, embeds=embeds, spent=Cost(decoded).spent(len(ids), embeds is not None))

    def chunks(self, size: int) -> list[CheckedRow]:
        """The same row in pieces of at most ``size`` tokens; what was sampled counts with the first.

        A token is drawn, and attention tapped, at the end of the last piece.
        """
        starts = range(0, self.count, size)
        pieces = [self.part(start, start + size, 0 if start else self.spent.decoded) for start in starts]
        for piece in pieces[:-1]:
            piece.draw = piece.owners = piece.matcher = None
        return pieces


@dataclass(frozen=True, eq=False)
class Output:
    """What a tick returns, in the order of its rows.

    ``logits`` ``[rows, vocab]``: of each row's last token, fetched when they are read. When asked for, ``hidden``
    ``[rows, hidden]``: its last hidden state after the final norm (``Row.embeds`` is ``[tokens, hidden]``: what row i
    would be fed of it is ``hidden[i : i + 1]``, one token); ``every``: per row, the logits ``[tokens, vocab]`` of all
    its tokens; ``every_hidden``, of both together: per row, the hidden states ``[tokens, hidden]`` of all its tokens;
    ``attention``: per row that has owners, whose keys its last token attends to: shares ``[layers, owners.names]``,
    means over the heads.
    """

    fetch: Callable[[], Tensor]
    """Fetches the logits of every wanted token ``[wanted, vocab]``."""
    hidden: Tensor | None = None
    pieces: tuple[slice, ...] | None = None
    """Which of the wanted belong to each row, where every token's logits were asked for; None: one each."""
    attention: tuple[Tensor | None, ...] | None = None
    states: Tensor | None = None
    """The hidden states of every wanted token ``[wanted, hidden]``, where they were asked for."""

    @cached_property
    def logits(self) -> Tensor:
        """Logits ``[rows, vocab]`` of each row's last token."""
        return self.fetch() if self.pieces is None else self.fetch()[[piece.stop - 1 for piece in self.pieces]]

    @cached_property
    def every(self) -> tuple[Tensor, ...] | None:
        """Logits ``[tokens, vocab]`` of each row's new tokens, or None where only the last ones were asked for."""
        if self.pieces is None:
            return None
        logits = self.fetch()
        return tuple(logits[piece] for piece in self.pieces)

    @property
    def every_hidden(self) -> tuple[Tensor, ...] | None:
        """Hidden states ``[tokens, hidden]`` of each row's new tokens, or None where they were not asked for."""
        if self.pieces is None or self.states is None:
            return None
        return tuple(self.states[piece] for piece in self.pieces)

    def part(self, start: int, stop: int, *, every: bool, attention: bool) -> Output:
        """The output of rows ``start`` to ``stop``, with every token's logits and their attention or without."""
        pieces = self.pieces[start:stop] if every and self.pieces is not None else None
        seen = self.attention[start:stop] if attention and self.attention is not None else None

        def fetch() -> Tensor:
            return self.logits[start:stop] if pieces is None else self.fetch()  # fetched once for all parts

        last = None if self.hidden is None else self.hidden[start:stop]
        return Output(fetch, last, pieces, seen, None if pieces is None else self.states)
