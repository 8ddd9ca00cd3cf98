"""Imitation: keys and values that look like given ones to attention's arithmetic and hold nothing of them.

The causal controls of any study of cache communication: does a reader use what the keys and values *say*, or only that
there are some? A control block takes as many positions as the original and is read in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from kvorum.errors import BadRequest, UnknownName
from kvorum.kv.block import LATENT, Block
from kvorum.kv.cache import KVCache, Rotation
from kvorum.wording import unknown

Imitation = Literal["zeroed", "random"]


def begin_imitation(block: Block, into: Block, kind: str) -> None:
    """Give the empty block ``into`` as many tokens as ``block`` has; no token has an id (``LATENT``).

    Raises:
        UnknownName: no such kind. OutOfPages: no room; nothing was written.
        BadRequest: fewer than 2 tokens to take moments of.
    """
    if kind not in get_args(Imitation):
        raise UnknownName(unknown("imitation", kind, get_args(Imitation)))
    if kind == "random" and len(block) < 2:
        raise BadRequest(f"{block.name} has {len(block)} tokens; moments need at least 2. Use kind='zeroed'.")
    into.append([LATENT] * len(block))


def imitate(
    cache: KVCache, rotations: Sequence[Rotation], kind: str, seed: int, source: Tensor, target: Tensor
) -> None:
    """Fill slots ``target [n]`` with an imitation of one block's slots ``source [n]``, index 0 first.

    "zeroed": all keys and values are 0. Every query scores 0 there, so the tokens take their share of the softmax and
    give nothing. "random": independent normal numbers with the mean and the standard deviation over the block's tokens
    of each feature of each head and layer; keys are compared unrotated and turned to their index afterwards, since the
    rotation would spread a feature's mean over its pair. The same seed gives the same numbers on any device.
    """
    source, target = source.to(cache.device), target.to(cache.device)
    at = torch.arange(len(source), device=cache.device)
    generator = torch.Generator().manual_seed(seed)
    for layer, rotation in enumerate(rotations):
        keys, values = cache.keys[layer][:, source], cache.values[layer][:, source]
        if kind == "zeroed":
            keys, values = torch.zeros_like(keys), torch.zeros_like(values)
        else:
            keys = rotation.rotate(_redrawn(rotation.rotate(keys, -at), generator), at)
            values = _redrawn(values, generator)
        cache.write(layer, target, keys, values)


def _redrawn(x: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers with the moments of ``x [heads, n, features]`` over ``n``; shape and dtype kept."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    noise = torch.randn(x.shape, generator=generator).to(wide)
    return (wide.mean(1, keepdim=True) + wide.std(1, keepdim=True, correction=0) * noise).to(x.dtype)
