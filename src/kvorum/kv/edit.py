"""Compaction: the one edit that copies. Many spans become one run of a block."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from kvorum.errors import ForeignBlock, SeenTwice, ViewError
from kvorum.kv.block import Block
from kvorum.kv.pool import PagePool
from kvorum.kv.view import Span

_TOGETHER = 4096
"""Tokens times layers that are carried in one go: a few tokens, layer by layer, would be many short calls."""


class Turns(Protocol):
    """A layer's rotation."""

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate ``x [heads, n, dim]`` by ``positions [n]``."""
        ...


def compact(items: Sequence[Block | Span], into: Block, rotaries: Sequence[Turns]) -> int:
    """Append the tokens of ``items`` to ``into``; returns how many there were.

    Each key is rotated once, from its index in the old block to its index in ``into``; values are copied.

    Raises:
        ViewError, SealedBlock, OutOfPages: nothing was written.
    """
    pool = into.pool
    spans = [Span(item) if isinstance(item, Block) else item for item in items]
    for span in spans:
        if not isinstance(span, Span):
            raise ViewError(f"compact takes blocks and spans, not {type(span).__name__}.")
        if span.block.pool is not pool:
            raise ForeignBlock(f"{span.block.name} and {into.name} belong to different engines.")
        if span.block is into:
            raise SeenTwice(f"{into.name} cannot be appended to itself; compact into a fresh block.")
    ids = [token for span in spans for token in span.block.ids[span.lo : span.lo + len(span)]]
    if not ids:
        return 0
    source = torch.cat([span.block.slot_tensor(span.lo, span.lo + len(span)) for span in spans])
    old = torch.cat([torch.arange(span.lo, span.lo + len(span)) for span in spans])
    start = len(into)
    into.append(ids)
    try:
        shift = torch.arange(start, len(into)) - old
        carry(pool, source, shift, into.slot_tensor(start, len(into)), rotaries)
    except BaseException:  # an interrupt too must leave the block as it was
        into.truncate(start)
        raise
    into.logits = None
    return len(ids)


def carry(pool: PagePool, source: Tensor, shift: Tensor, target: Tensor, rotaries: Sequence[Turns]) -> None:
    """Copy what lies at slots ``source [n]`` to ``target [n]``, each key turned by its ``shift [n]``, in all layers."""
    source, shift, target = (x.to(pool.device) for x in (source, shift, target))
    step = max(1, _TOGETHER // max(1, len(source)))
    layer = 0
    for keys, values in pool.stacks:
        turns = rotaries[layer : (layer := layer + len(keys))]
        for _, run in groupby(range(len(keys)), key=lambda at: id(turns[at])):
            alike = list(run)
            first, stop = alike[0], alike[-1] + 1
            for at in range(first, stop, step):
                some = slice(at, min(at + step, stop))
                old = keys[some].index_select(2, source)
                turned = turns[first].rotate(old.flatten(0, 1), shift).view(old.shape)
                keys[some].index_copy_(2, target, turned)
                values[some].index_copy_(2, target, values[some].index_select(2, source))
