"""Packed weights: a matrix in 4-bit or 7-bit codes, in groups of 32 inputs that share a scale and a min.

The layout is in `native/README.md`. Products with it are in `products`, the layers that hold it in `layers`.
Not covered: inputs that are no multiple of 32, gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from kvorum.native_extension import Kernels

if TYPE_CHECKING:
    from kvorum_native import Matrix

GROUP = 32  # inputs that share a scale
ROWS = 16  # output rows that lie side by side
_HEAD = 64  # bytes of scales and mins before a block's codes


@dataclass(eq=False)
class PackedPart:
    """One packed matrix [rows, features], with its bias or none.

    `data` uint8 [rows/16, features/32, bytes], `mult` float32 [rows].
    """

    data: Tensor
    mult: Tensor
    bits: int
    bias: Tensor | None = None

    @property
    def rows(self) -> int:
        return self.mult.shape[0]

    def dequantize(self, rows: Tensor | None = None) -> Tensor:
        """The weights that the codes stand for, float32 [rows, features]; or only of `rows` (LongTensor [n])."""
        if rows is None:
            rows = torch.arange(self.rows)
        # in numpy, whose calls on a few rows take a fraction of torch's
        at = rows.numpy()
        block, lane = at // ROWS, at % ROWS
        heads, lanes, mult = self._by_row
        head = heads[block, lane].astype(np.float32)  # [n, 2, groups]
        codes = lanes[block, lane]  # [n, groups, 4 or 8, 4]
        if self.bits == 4:
            codes = np.concatenate((codes & 15, codes >> 4), 2)
        values = codes.reshape(*codes.shape[:2], GROUP) * head[:, 0, :, None] + head[:, 1, :, None]
        return torch.from_numpy(values.reshape(len(at), -1) * mult[at, None])

    @functools.cached_property
    def _by_row(self) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """The same memory, blocks and lanes in front: `[blocks, 16, 2, groups]` scales and mins, codes, and `mult`."""
        blocks, groups, size = self.data.shape
        heads = self.data[..., :_HEAD].view(torch.float16).view(blocks, groups, 2, ROWS)
        lanes = self.data[..., _HEAD:].view(blocks, groups, (size - _HEAD) // (ROWS * 4), ROWS, 4)
        return heads.permute(0, 3, 2, 1).numpy(), lanes.permute(0, 3, 1, 2, 4).numpy(), self.mult.numpy()

    @functools.cached_property
    def dense(self) -> Tensor:
        """`dequantize()` of all rows, kept: the twin would spend all its time on it otherwise. 4 bytes a weight."""
        return torch.cat([self.dequantize(rows) for rows in torch.split(torch.arange(self.rows), 4096)])


class PackedMatrix:
    """Packed matrices with the same inputs, one under the other: their outputs come side by side, from one product."""

    def __init__(self, parts: Iterable[PackedPart]) -> None:
        self.parts = tuple(parts)
        self.features = self.parts[0].data.shape[1] * GROUP
        if any(part.data.shape[1] * GROUP != self.features for part in self.parts):
            raise ValueError("packed matrices that take different inputs cannot be joined")
        self.rows = sum(part.rows for part in self.parts)
        self._matrix: Matrix | None = None

    @staticmethod
    def join(several: Iterable[PackedMatrix]) -> PackedMatrix:
        """One matrix of all the rows, in order. Nothing is copied."""
        return PackedMatrix(part for packed in several for part in packed.parts)

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return sum(part.data.nbytes + part.mult.nbytes for part in self.parts)

    def matrix(self, native: Kernels) -> Matrix:
        """The native view of the parts, whose tensors stay in place as long as this object lives."""
        if self._matrix is None:
            matrix = native.Matrix(self.features)
            for part in self.parts:
                bias = 0 if part.bias is None else part.bias.data_ptr()
                matrix.add(part.bits, part.data.data_ptr(), part.rows, part.mult.data_ptr(), bias)
            self._matrix = matrix
        return self._matrix


def pack(codes: Tensor, scale: Tensor, low: Tensor, bits: int) -> PackedPart:
    """Lay out `codes` uint8 [N, K] (below 2 ** bits, bits 4 or 7) with `scale` and `low` float32 [N, K/32]."""
    rows, features = codes.shape
    if bits not in (4, 7):
        raise ValueError(f"codes of {bits} bits; there are 4 and 7")
    if features % GROUP:
        raise ValueError(f"{features} inputs are no multiple of {GROUP}")
    mult = row_mult(scale, low)
    more = -rows % ROWS
    codes, scale, low = (functional.pad(t, (0, 0, 0, more)) for t in (codes, scale / mult, low / mult))
    blocks, groups = (rows + more) // ROWS, features // GROUP
    lanes = codes.view(blocks, ROWS, groups, 8, 4).permute(0, 2, 3, 1, 4)
    if bits == 4:
        lanes = lanes[:, :, :4] | (lanes[:, :, 4:] << 4)
    head = torch.stack([t.view(blocks, ROWS, groups).transpose(1, 2) for t in (scale, low)], 2).half().flatten(2)
    data = torch.cat((head.view(torch.uint8), lanes.flatten(2)), 2)
    return PackedPart(data, mult[:, 0].contiguous(), bits)


def row_mult(scale: Tensor, low: Tensor) -> Tensor:
    """A power of two per row, [N, 1], by which scales and mins fit float16 with room on both sides."""
    top = torch.maximum(scale.abs().amax(1, keepdim=True), low.abs().amax(1, keepdim=True))
    return torch.exp2(torch.frexp(top.clamp_min(2.0**-100))[1].float() - 14)


def encode(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise `weight` [N, K]: codes uint8 [N, K], scale and min [N, K/32], both as float16 will hold them.

    With 4 bits the range of each group is shrunk to where its squared error is least.
    """
    rows, features = weight.shape
    w = weight.detach().float().view(rows, features // GROUP, GROUP)
    bottom, top = w.amin(2, keepdim=True), w.amax(2, keepdim=True)
    middle, levels = (bottom + top) / 2, 2**bits - 1
    mult = row_mult(((top - bottom) / levels)[..., 0], torch.maximum(bottom.abs(), top.abs())[..., 0])[..., None]
    codes, scale, low = w, top, bottom  # any values of these shapes: the first share is better
    least = torch.full_like(top, torch.inf)
    for share in (1.0, 0.96, 0.92, 0.88, 0.84, 0.8) if bits == 4 else (1.0,):
        s = ((top - bottom) * share / levels / mult).half().float() * mult
        m = ((middle - (top - bottom) * share / 2) / mult).half().float() * mult
        c = ((w - m) * torch.where(s > 0, 1 / s, 0)).round_().clamp_(0, levels)
        error = (c * s + m - w).square_().sum(2, keepdim=True)
        better = error < least
        codes, scale, low = (torch.where(better, new, old) for new, old in ((c, codes), (s, scale), (m, low)))
        least = torch.minimum(error, least)
    return codes.to(torch.uint8).view(rows, features), scale[..., 0], low[..., 0]


def pack_weight(weight: Tensor, bits: int, bias: Tensor | None = None) -> PackedPart:
    """`weight` [N, K] of any float dtype, quantised and packed."""
    pieces = (pack(*encode(rows, bits), bits) for rows in torch.split(weight, chunk_rows(weight.shape[1])))
    return stack(pieces, bias)


def chunk_rows(features: int) -> int:
    """How many rows to convert at a time, so that what lies between the steps stays in the cache."""
    return max(ROWS, 2**19 // features // ROWS * ROWS)


def stack(pieces: Iterable[PackedPart], bias: Tensor | None) -> PackedPart:
    """One part of `pieces` of the same width, all but the last of a multiple of 16 rows, with `bias` for all."""
    parts = list(pieces)
    data, mult = torch.cat([part.data for part in parts]), torch.cat([part.mult for part in parts])
    return PackedPart(data, mult, parts[0].bits, None if bias is None else bias.detach().float().contiguous())
