"""Imitation: blocks that look like a given one to attention's arithmetic and hold nothing of it.

The causal controls of any study of cache communication: does a reader use what the keys and values *say*, or only that
there are some? A control block takes as many positions as the original and is read in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvorum.errors import BadRequest, UnknownName
from kvorum.kv.block import LATENT, Block
from kvorum.kv.edit import Turns
from kvorum.wording import unknown

KINDS = ("zeroed", "random")


def imitate(block: Block, into: Block, kind: str, rotaries: Sequence[Turns], seed: int = 0) -> None:
    """Fill the empty block ``into`` with as many tokens as ``block`` has and seal it; no token has an id (``LATENT``).

    "zeroed": all keys and values are 0. Every query scores 0 there, so the tokens take their share of the softmax and
    give nothing. "random": independent normal numbers with the mean and the standard deviation over the block's tokens
    of each feature of each head and layer; keys are compared unrotated and turned to their index afterwards, since the
    rotation would spread a feature's mean over its pair. The same seed gives the same numbers on any device.

    Raises:
        UnknownName: no such kind. OutOfPages: no room; nothing was written.
        BadRequest: fewer than 2 tokens to take moments of.
    """
    if kind not in KINDS:
        raise UnknownName(unknown("imitation", kind, KINDS))
    count = len(block)
    if kind == "random" and count < 2:
        raise BadRequest(f"{block.name} has {count} tokens; moments need at least 2. Use kind='zeroed'.")
    into.append([LATENT] * count)
    pool = block.pool
    source, target = (b.slot_tensor(0, count).to(pool.device) for b in (block, into))
    at = torch.arange(count, device=pool.device)
    generator = torch.Generator().manual_seed(seed)
    for layer, rotary in enumerate(rotaries):
        keys, values = pool.keys[layer][:, source], pool.values[layer][:, source]
        if kind == "zeroed":
            keys, values = torch.zeros_like(keys), torch.zeros_like(values)
        else:
            keys = rotary.rotate(_redrawn(rotary.rotate(keys, -at), generator), at)
            values = _redrawn(values, generator)
        pool.write(layer, target, keys, values)
    into.seal()


def _redrawn(x: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers with the moments of ``x [heads, n, features]`` over ``n``; shape and dtype kept."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    noise = torch.randn(x.shape, generator=generator).to(wide)
    return (wide.mean(1, keepdim=True) + wide.std(1, keepdim=True, correction=0) * noise).to(x.dtype)
