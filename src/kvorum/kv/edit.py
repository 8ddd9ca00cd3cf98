"""Compaction: the one edit that copies. Many spans become one run of a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kvorum.errors import SeenTwice, ViewError
from kvorum.kv.block import Block, check_pool, unchanged_on_error
from kvorum.kv.view import Span

Carry = Callable[[Tensor, Tensor, Tensor], None]
"""``carry(source, shift, target)``, int64 ``[n]`` each: copy keys, turned by ``shift``, and values between slots."""


def compact(items: Sequence[Block | Span], into: Block, carry: Carry) -> int:
    """Append the tokens of ``items`` to ``into``; returns how many there were.

    Each key is rotated once, from its index in the old block to its index in ``into``; values are copied.

    Raises:
        ViewError, SealedBlock, OutOfPages: nothing was written.
    """
    spans = [Span(item) if isinstance(item, Block) else item for item in items]
    for span in spans:
        if not isinstance(span, Span):
            raise ViewError(f"compact takes blocks and spans, not {type(span).__name__}.")
        check_pool(span.block, into.pool)
        if span.block is into:
            raise SeenTwice(f"{into.name} cannot be appended to itself; compact into a fresh block.")
    ids = [token for span in spans for token in span.block.ids[span.lo : span.lo + len(span)]]
    if not ids:
        return 0
    source = torch.cat([span.block.table.slot_tensor(span.lo, span.lo + len(span)) for span in spans])
    old = torch.cat([torch.arange(span.lo, span.lo + len(span)) for span in spans])
    start = len(into)
    with unchanged_on_error([into]):
        into.append(ids)
        carry(source, torch.arange(start, len(into)) - old, into.table.slot_tensor(start, len(into)))
        into.set_logits(None)
    return len(ids)
