"""What is written to a block without a forward pass: compaction, and imitation.

Compaction is the one edit that copies: many spans become one run of a block. An imitation looks like given keys and
values to attention's arithmetic and holds nothing of them: the causal control of any study of cache communication. Does
a reader use what the keys and values *say*, or only that there are some? A control block takes as many positions as the
original and is read in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from kvorum.errors import BadRequest, SeenTwice, ViewError
from kvorum.kv.block import LATENT, Block, check_pool, unchanged_on_error
from kvorum.kv.cache import CachePart, KVCache, Rotation
from kvorum.kv.span import Span
from kvorum.wording import check_known

Carry = Callable[[Tensor, Tensor, Tensor], None]
"""``carry(source, shift, target)``, int64 ``[n]`` each: copy keys, turned by ``shift``, and values between slots."""

Imitation = Literal["zeroed", "random"]


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
        if span.at is not None:
            raise ViewError(f"compact writes tokens one behind the other, so it takes no placed span such as {span}.")
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


def begin_imitation(block: Block, into: Block, kind: str) -> None:
    """Give the empty block ``into`` as many tokens as ``block`` has; no token has an id (``LATENT``).

    Raises:
        UnknownName: no such kind. OutOfPages: no room; nothing was written.
        BadRequest: fewer than 2 tokens to take moments of.
    """
    check_known("imitation", kind, get_args(Imitation))
    if kind == "random" and len(block) < 2:
        raise BadRequest(f"{block.name} has {len(block)} tokens; moments need at least 2. Use kind='zeroed'.")
    into.append([LATENT] * len(block))


def imitate(
    cache: KVCache,
    rotations: Sequence[Rotation],
    kind: str,
    seed: int,
    source: Tensor,
    target: Tensor,
    part: CachePart | None = None,
) -> None:
    """Fill slots ``target [n]`` with an imitation of one block's slots ``source [n]``, index 0 first.

    "zeroed": all keys and values are 0. Every query scores 0 there, so the tokens take their share of the softmax and
    give nothing. "random": independent normal numbers with the mean and the standard deviation over the block's tokens
    of each feature of each head and layer; keys are compared unrotated and turned to their index afterwards, since the
    rotation would spread a feature's mean over its pair. The same seed gives the same numbers on any device, and in any
    number of processes: ``part`` is what this one holds (None: everything).
    """
    source, target = source.to(cache.device), target.to(cache.device)
    at = torch.arange(len(source), device=cache.device)
    generator = torch.Generator().manual_seed(seed)
    held = part or CachePart.all_of(cache.layers)
    for layer, shape in enumerate(held.whole):
        here = layer - held.first
        if kind == "zeroed":
            if 0 <= here < len(held.own):
                keys, values = cache.numbers(here, source)
                cache.write(here, target, torch.zeros_like(keys), torch.zeros_like(values))
            continue
        noise = [
            held.take(layer, torch.randn(shape.kv_heads, len(source), dim, generator=generator))
            for dim in (shape.k_dim, shape.v_dim)
        ]
        if noise[0] is None or noise[1] is None:
            continue
        turn = rotations[here].rotate
        keys, values = cache.numbers(here, source)
        cache.write(here, target, turn(_redrawn(turn(keys, -at), noise[0]), at), _redrawn(values, noise[1]))


def _redrawn(x: Tensor, noise: Tensor) -> Tensor:
    """``noise`` with the moments of ``x [heads, n, features]`` over ``n``; shape and dtype of ``x``."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean, deviation = wide.mean(1, keepdim=True), wide.std(1, keepdim=True, correction=0)
    return (mean + deviation * noise.to(wide)).to(x.dtype)
