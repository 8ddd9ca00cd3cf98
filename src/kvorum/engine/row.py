"""Rows: what goes into a tick, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvorum.engine.budget import Ledger
from kvorum.errors import EmptyRow, ForeignBlock, NotWritable, SealedBlock, TwoWriters, ViewError, ViewTooLong
from kvorum.kv import LATENT, Block, PagePool, Span, View


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

    @property
    def token_ids(self) -> list[int]:
        """The ids as the block records them; a latent step is ``LATENT``."""
        return [LATENT] * self.count if self.ids is None else [index(token) for token in self.ids]

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

    def of(self, row: Row) -> Ledger:
        """The row's entry in the ledger."""
        if row.embeds is not None:
            return Ledger(latent=row.count)
        decoded = (1 if row.count == 1 else 0) if self.decoded is None else min(self.decoded, row.count)
        return Ledger(decoded=decoded, prefill=row.count - decoded)


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What a tick returns, in the order of its rows.

    ``logits`` ``[rows, vocab]``: of each row's last token. When asked for, ``hidden`` ``[rows, hidden]``: its last
    hidden state after the final norm; ``every``: per row, the logits ``[tokens, vocab]`` of all its tokens;
    ``attention``: per row that has owners, whose keys its last token attends to: shares ``[layers, owners.names]``,
    means over the heads.
    """

    logits: Tensor
    hidden: Tensor | None = None
    every: tuple[Tensor, ...] | None = None
    attention: tuple[Tensor | None, ...] | None = None


def check(rows: Sequence[Row], pool: PagePool, vocab: int, hidden: int) -> list[Block]:
    """The blocks that the rows write to. Raises a named error, before anything is written, if a row cannot be."""
    writes: dict[int, int] = {}
    blocks = []
    for at, row in enumerate(rows):
        _check_kind(at, row)
        own = row.view.own
        if own is None:
            raise NotWritable(f"Row {at}: {row.view} does not end in the open end of a block; put a block last.")
        for block in row.view.blocks:
            check_pool(block, pool, f"Row {at}: ")
        if own.sealed:
            raise SealedBlock(f"Row {at}: {own.name} is sealed; put a fresh block behind it and write there.")
        if own.uid in writes:
            raise TwoWriters(f"Rows {writes[own.uid]} and {at} both write to {own.name}; give each its own block.")
        writes[own.uid] = at
        _check_tokens(at, row, vocab, hidden)
        blocks.append(own)
    return blocks


def check_lengths(rows: Sequence[Row], blocks: Sequence[Block], positions: int | None, most: int | None) -> None:
    """Raises ViewTooLong for a tick of more than ``most`` tokens of several rows, or a view of more than ``positions``.

    ``blocks``: those that the rows write to. None: no limit.
    """
    total = sum(row.count for row in rows)
    if most is not None and len(rows) > 1 and total > most:
        raise ViewTooLong(f"This model takes at most {most} tokens per tick and the rows have {total}.")
    if positions is None:
        return
    growth = {block.uid: row.count for block, row in zip(blocks, rows, strict=True)}
    for at, row in enumerate(rows):
        opened = (i.block.uid for i in row.view.items if isinstance(i, Span) and i.hi is None)
        length = len(row.view) + sum(growth.get(uid, 0) for uid in opened)
        if length > positions:
            raise ViewTooLong(
                f"Row {at}: its view would take {length} positions and this model is exact up to {positions}; "
                "prune the view or use a model with a longer context."
            )


def check_pool(block: Block, pool: PagePool, where: str = "") -> None:
    """Raises ForeignBlock for a block of another engine."""
    if block.pool is not pool:
        raise ForeignBlock(f"{where}{block.name} belongs to another engine; save it there and load it here.")


def _check_kind(at: int, row: Any) -> None:
    if not isinstance(row, Row) or not isinstance(row.view, View):
        found = f"a Row of a {type(row.view).__name__}" if isinstance(row, Row) else f"a {type(row).__name__}"
        raise ViewError(f"Row {at}: a tick takes Row(View(...), ids=[...]), and this is {found}.")


def _check_tokens(at: int, row: Row, vocab: int, hidden: int) -> None:
    if (row.ids is None) == (row.embeds is None):
        raise EmptyRow(f"Row {at}: give either ids or embeds.")
    if not isinstance(row.embeds, Tensor | None) or (row.embeds is not None and not row.embeds.is_floating_point()):
        raise EmptyRow(f"Row {at}: embeds must be a tensor of floats.")
    try:
        ids = row.token_ids
    except TypeError as error:
        raise EmptyRow(f"Row {at}: ids must be a list of whole numbers ({error}).") from error
    if not ids:
        raise EmptyRow(f"Row {at} has no new tokens; leave it out of the tick.")
    if row.embeds is not None:
        if row.embeds.ndim != 2 or row.embeds.shape[1] != hidden:
            raise EmptyRow(f"Row {at}: embeds must be [tokens, {hidden}], not {list(row.embeds.shape)}.")
        if not bool(torch.isfinite(row.embeds).all()):
            raise EmptyRow(f"Row {at}: embeds hold values that are not finite.")
    elif not all(0 <= token < vocab for token in ids):
        raise EmptyRow(f"Row {at}: token ids must lie from 0 to {vocab - 1}.")


def each(every: bool | Sequence[bool], rows: int) -> Sequence[bool]:
    """``every`` said row by row."""
    return [every] * rows if isinstance(every, bool) else every


def last_of_each(counts: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Places in the packed batch of the last ``wanted`` of each row's tokens."""
    ends = np.cumsum(counts)
    return torch.from_numpy(np.concatenate([np.arange(end - n, end) for end, n in zip(ends, wanted, strict=True)]))
