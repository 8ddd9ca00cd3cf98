"""Compaction: the one edit that copies. Many spans become one run of a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from kvorum.errors import ForeignBlock, SeenTwice, ViewError
from kvorum.kv.block import Block
from kvorum.kv.pool import PagePool
from kvorum.kv.view import Span

_TOGETHER = 16
"""Layers whose keys are turned in one go: a few tokens in many layers, else, are many short calls."""


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
    alike: dict[tuple[int, int], list[int]] = {}  # layers that turn alike, for whom the angles are made once
    for layer, (rotary, shape) in enumerate(zip(rotaries, pool.layers, strict=True)):
        alike.setdefault((id(rotary), shape.k_dim), []).append(layer)
    for every in alike.values():
        for layers in (every[at : at + _TOGETHER] for at in range(0, len(every), _TOGETHER)):
            keys = rotaries[layers[0]].rotate(torch.cat([pool.keys[at][:, source] for at in layers]), shift)
            heads = [pool.layers[at].kv_heads for at in layers]
            for layer, part in zip(layers, torch.split(keys, heads), strict=True):
                pool.write(layer, target, part, pool.values[layer][:, source])
