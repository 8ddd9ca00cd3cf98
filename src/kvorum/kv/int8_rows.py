"""A cache in 8 bits: how the numbers of one token and one head lie in it.

A row is the scales of its groups of 32 numbers, in float32, and behind them the numbers as whole ones from -127 to 127,
of which each stands for itself times the scale of its group. So a row is written and read by itself, whatever else the
cache holds, and is copied as so many bytes. Groups, because some models' keys have a few numbers a hundred times as
large as the others: one scale for the whole head would round the others away. The twin of ``encode`` and ``Numbers`` in
``native/cpp``, and of ``put`` and ``load`` in ``attention/triton/rows.py``, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 32
"""Numbers that share a scale."""

_LEAST = 2.0**-100
"""Numbers that are all nearer to 0 are stored as 0: 127 over them could be beyond what a float holds."""


def row_bytes(dim: int) -> int:
    """Bytes of a row of ``dim`` numbers: a multiple of 4, so that the scales are where a float may be."""
    return 4 * _groups(dim) + -(-dim // 4) * 4


def encode(x: Tensor) -> Tensor:
    """Rows ``[..., row_bytes(dim)]`` int8 of numbers ``[..., dim]``, each the nearest of its group's 255.

    A group with a number that is none, or infinite, is read back as no numbers.
    """
    dim, count = x.shape[-1], _groups(x.shape[-1])
    grouped = torch.nn.functional.pad(x.float(), (0, count * GROUP - dim)).unflatten(-1, (count, GROUP))
    most = grouped.abs().amax(-1)
    little = most < _LEAST
    top = torch.full_like(most, 127.0)  # torch would multiply a plain number by the reciprocal, which rounds twice
    by = torch.where(little, 0.0, top / most)
    codes = torch.nan_to_num(torch.round(grouped * by[..., None]), 0.0, 127.0, -127.0).to(torch.int8)
    rows = codes.new_zeros(*x.shape[:-1], row_bytes(dim))
    rows[..., : 4 * count].view(torch.float32).copy_(torch.where(little, 0.0, most / top))
    rows[..., 4 * count : 4 * count + dim] = codes.flatten(-2)[..., :dim]
    return rows


def decode(rows: Tensor, dim: int) -> Tensor:
    """The float32 numbers ``[..., dim]`` of rows ``[..., row_bytes(dim)]``."""
    count = _groups(dim)
    scales = rows[..., : 4 * count].contiguous().view(torch.float32)
    codes = rows[..., 4 * count : 4 * count + dim].float()
    return codes * scales.repeat_interleave(GROUP, -1)[..., :dim]


def _groups(dim: int) -> int:
    return -(-dim // GROUP)
