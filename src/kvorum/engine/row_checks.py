"""Rows are checked before anything is written, so that what cannot be run is refused by name and costs nothing.

What a row is by itself is checked once, when it is handed in (``check_rows``); what depends on the others of its tick
and on how far blocks have grown, when its tick begins (``admit``).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from reprlib import repr
from typing import Any

import torch
from torch import Tensor

from kvorum.engine.row import CheckedRow, Cost, Row
from kvorum.errors import BadRow, NotWritable, OutOfPages, SealedBlock, TwoWriters, ViewError, ViewTooLong
from kvorum.kv import LATENT, PagePool, View
from kvorum.kv.block import check_pool
from kvorum.models.shape import ModelShape


def check_rows(
    rows: Sequence[Row], costs: Sequence[Cost] | None, pool: PagePool, shape: ModelShape
) -> list[CheckedRow]:
    """The rows of a tick, each checked by itself. ``costs``: see ``Cost``; None: the default for all.

    Raises:
        ViewError and its kinds, BadRow: the row and what is wrong with it.
    """
    if not rows:
        raise BadRow("A tick needs at least one row.")
    checked = []
    for at, row in enumerate(rows):
        _check_kind(at, row)
        own = row.view.own
        if own is None:
            raise NotWritable(f"Row {at}: {row.view} does not end in the open end of a block; put a block last.")
        if row.view.pool is not pool:
            for block in row.view.blocks:
                check_pool(block, pool, f"Row {at}: ")
        ids = _checked_ids(at, row, shape)
        cost = costs[at] if costs else Cost()
        spent = cost.spent(len(ids), latent=row.embeds is not None)
        checked.append(CheckedRow(row.view, own, ids, row.embeds, spent, row.every))
    return checked


def _check_kind(at: int, row: Any) -> None:
    if not isinstance(row, Row) or not isinstance(row.view, View):
        found = f"a Row of a {type(row.view).__name__}" if isinstance(row, Row) else f"a {type(row).__name__}"
        raise ViewError(f"Row {at}: a tick takes Row(View(...), ids=[...]), and this is {found}.")


def _checked_ids(at: int, row: Row, shape: ModelShape) -> list[int]:
    if (row.ids is None) == (row.embeds is None):
        raise BadRow(f"Row {at}: give either ids or embeds.")
    if row.embeds is not None:
        return _checked_latent(at, row.embeds, shape.hidden)
    try:
        ids = [index(token) for token in row.ids] if row.ids is not None else []
    except TypeError as error:
        given = repr(row.ids)
        raise BadRow(f"Row {at}: ids must be whole numbers from 0 to {shape.vocab - 1}, not {given}.") from error
    if not ids:
        raise BadRow(f"Row {at} has no new tokens; leave it out of the tick.")
    if min(ids) < 0 or max(ids) >= shape.vocab:
        wrong = next(token for token in ids if not 0 <= token < shape.vocab)
        raise BadRow(f"Row {at}: {wrong} is no token id of this model; its ids lie from 0 to {shape.vocab - 1}.")
    return ids


def _checked_latent(at: int, embeds: Tensor, hidden: int) -> list[int]:
    if not isinstance(embeds, Tensor) or not embeds.is_floating_point():
        raise BadRow(f"Row {at}: embeds must be a tensor of floats.")
    if not len(embeds.shape) or not len(embeds):
        raise BadRow(f"Row {at} has no new tokens; leave it out of the tick.")
    if embeds.ndim != 2 or embeds.shape[1] != hidden:
        raise BadRow(f"Row {at}: embeds must be [tokens, {hidden}], not {list(embeds.shape)}.")
    if not bool(torch.isfinite(embeds).all()):
        raise BadRow(f"Row {at}: embeds hold values that are not finite.")
    return [LATENT] * len(embeds)


def admit(rows: Sequence[CheckedRow], pool: PagePool, shape: ModelShape) -> None:
    """Check that these rows can share a tick now: distinct open blocks, lengths the model can take, enough pages.

    Raises:
        SealedBlock, TwoWriters, ViewTooLong, OutOfPages: nothing was written.
    """
    growth: dict[int, int] = {}
    pages = 0
    for at, row in enumerate(rows):
        own = row.own
        if own.sealed:
            raise SealedBlock(f"Row {at}: {own.name} is sealed; put a fresh block behind it and write there.")
        if own.uid in growth:
            first = next(n for n, other in enumerate(rows) if other.own is own)
            raise TwoWriters(f"Rows {first} and {at} both write to {own.name}; give each its own block.")
        growth[own.uid] = row.count
        pages += own.pages_needed(row.count)
    total = sum(growth.values())
    if shape.max_tokens is not None and len(rows) > 1 and total > shape.max_tokens:
        raise ViewTooLong(f"This model takes at most {shape.max_tokens} tokens per tick and the rows have {total}.")
    for at, row in enumerate(rows):
        if row.view.placed or shape.max_positions is not None:
            _check_positions(at, row.view, growth, shape.max_positions)
    if pages > pool.free:
        size = pool.page_size
        raise OutOfPages(
            f"The tick needs {pages} pages ({pages * size} token slots) and {pool.free} of {pool.pages} "
            "are free: drop views or blocks that are no longer used, or load with a larger kv_tokens."
        )


def _check_positions(at: int, view: View, growth: dict[int, int], most: int | None) -> None:
    *starts, length = view.starts(growth)
    if view.placed:
        reached = View(*view.items[:-1]).starts(growth)[-1]
        if starts[-1] < reached:
            raise NotWritable(
                f"Row {at}: its own block is placed at position {starts[-1]} and what it sees reaches to {reached}; "
                "a row writes behind all that it sees. Place it there or leave its `at` out."
            )
    if most is not None and length > most:
        raise ViewTooLong(
            f"Row {at}: its view would take {length} positions and this model is exact up to {most}; "
            "prune the view or use a model with a longer context."
        )
