"""Packed weights and quantised inputs: the format, the products, and their plain-torch twins.

A weight matrix is kept in 4-bit or 7-bit codes in groups of 32 inputs, each with a scale and a min; inputs
are quantised row by row, also in groups of 32, to signed 8 bits. The layout is in `native/README.md`. Every
operation runs the native kernel where `kvorum_native` is installed (and `KVORUM_NATIVE` is not 0), and
otherwise a twin in torch with the same quantisation, so the two differ by float rounding only.

Covers float32 on the CPU. Not covered: GPUs, inputs that are no multiple of 32, gradients.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kvorum.extension import kernels

GROUP = 32  # inputs that share a scale
ROWS = 16  # output rows that lie side by side
_HEAD = 64  # bytes of scales and mins before a block's codes


class Activations(NamedTuple):
    """M rows of K quantised inputs.

    `codes` int8 [K/32, M, 32]; `scales` float32 [K/32, M, 2]: the scale, and the scale times the sum of codes.
    """

    codes: Tensor
    scales: Tensor

    def dequantize(self) -> Tensor:
        """The values that the codes stand for, float32 [M, K]."""
        groups, rows, _ = self.codes.shape
        values = self.codes * self.scales[..., :1]
        return values.transpose(0, 1).reshape(rows, groups * GROUP)


@dataclass(eq=False)
class Part:
    """One packed matrix [rows, features], with its bias or none.

    `data` uint8 [rows/16, features/32, bytes], `mult` float32 [rows].
    """

    data: Tensor
    mult: Tensor
    bits: int
    bias: Tensor | None = None
    _dense: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def rows(self) -> int:
        return self.mult.shape[0]

    def dequantize(self, rows: Tensor | None = None) -> Tensor:
        """The weights that the codes stand for, float32 [rows, features]; or only of `rows` (LongTensor [n])."""
        if rows is None:
            rows = torch.arange(self.rows)
        block, lane = rows // ROWS, rows % ROWS
        head = self.data[..., :_HEAD].view(torch.float16)
        scale, low = head[block, :, lane].float(), head[block, :, ROWS + lane].float()
        blocks, groups, size = self.data.shape
        lanes = self.data[..., _HEAD:].view(blocks, groups, (size - _HEAD) // (ROWS * 4), ROWS, 4)
        codes = lanes[block, :, :, lane]  # [n, groups, 4 or 8, 4]
        if self.bits == 4:
            codes = torch.cat((codes & 15, codes >> 4), 2)
        values: Tensor = codes.flatten(2) * scale[..., None] + low[..., None]
        return values.flatten(1) * self.mult[rows, None]

    def dense(self) -> Tensor:
        """`dequantize()` of all rows, kept: the twin would spend all its time on it otherwise. 4 bytes a weight."""
        if self._dense is None:
            self._dense = torch.cat([self.dequantize(rows) for rows in torch.split(torch.arange(self.rows), 4096)])
        return self._dense


class Packed:
    """Packed matrices with the same inputs, one under the other: their outputs come side by side, from one product."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(parts)
        self.features = self.parts[0].data.shape[1] * GROUP
        if any(part.data.shape[1] * GROUP != self.features for part in self.parts):
            raise ValueError("packed matrices that take different inputs cannot be joined")
        self.rows = sum(part.rows for part in self.parts)
        self._matrix: Any = None

    @staticmethod
    def join(several: Iterable[Packed]) -> Packed:
        """One matrix of all the rows, in order. Nothing is copied."""
        return Packed(part for packed in several for part in packed.parts)

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return sum(part.data.nbytes + part.mult.nbytes for part in self.parts)

    def matrix(self, native: Any) -> Any:
        """The native view of the parts, whose tensors stay in place as long as this object lives."""
        if self._matrix is None:
            matrix = native.Matrix(self.features)
            for part in self.parts:
                bias = 0 if part.bias is None else part.bias.data_ptr()
                matrix.add(part.bits, part.data.data_ptr(), part.rows, part.mult.data_ptr(), bias)
            self._matrix = matrix
        return self._matrix


def pack(codes: Tensor, scale: Tensor, low: Tensor, bits: int) -> Part:
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
    return Part(data, mult[:, 0].contiguous(), bits)


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
    least: Tensor | None = None
    for part in (1.0, 0.96, 0.92, 0.88, 0.84, 0.8) if bits == 4 else (1.0,):
        s = ((top - bottom) * part / levels / mult).half().float() * mult
        m = ((middle - (top - bottom) * part / 2) / mult).half().float() * mult
        c = ((w - m) * torch.where(s > 0, 1 / s, 0)).round_().clamp_(0, levels)
        error = (c * s + m - w).square_().sum(2, keepdim=True)
        if least is None:
            codes, scale, low, least = c, s, m, error
            continue
        better = error < least
        codes, scale, low = (torch.where(better, new, old) for new, old in ((c, codes), (s, scale), (m, low)))
        least = torch.minimum(error, least)
    return codes.to(torch.uint8).view(rows, features), scale[..., 0], low[..., 0]


def pack_weight(weight: Tensor, bits: int, bias: Tensor | None = None) -> Part:
    """`weight` [N, K] of any float dtype, quantised and packed."""
    pieces = (pack(*encode(rows, bits), bits) for rows in torch.split(weight, chunk_rows(weight.shape[1])))
    return stack(pieces, bias)


def chunk_rows(features: int) -> int:
    """How many rows to convert at a time, so that what lies between the steps stays in the cache."""
    return max(ROWS, 2**19 // features // ROWS * ROWS)


def stack(pieces: Iterable[Part], bias: Tensor | None) -> Part:
    """One part of `pieces` of the same width, all but the last of a multiple of 16 rows, with `bias` for all."""
    parts = list(pieces)
    data, mult = torch.cat([part.data for part in parts]), torch.cat([part.mult for part in parts])
    return Part(data, mult, parts[0].bits, None if bias is None else bias.detach().float().contiguous())


# --- The operations. Each runs natively or in torch; the signatures are the same. ---


def quantize_rows(x: Tensor) -> Activations:
    """Quantise `x` float32 [M, K]."""
    native = _native()
    if native is None:
        return _quantize(x)
    x = x.contiguous()
    out = _empty(x.shape[0], x.shape[1])
    native.quantize(x.data_ptr(), *x.shape, out[0].data_ptr(), out[1].data_ptr(), torch.get_num_threads())
    return out


def rms_quantize(x: Tensor, weight: Tensor, eps: float) -> Activations:
    """Quantise `weight * x / sqrt(mean(x ** 2) + eps)`, `x` float32 [M, K], `weight` float32 [K]."""
    native = _native()
    if native is None:
        return _quantize(weight * (x * torch.rsqrt(x.square().mean(1, keepdim=True) + eps)))
    x = x.contiguous()
    out = _empty(x.shape[0], x.shape[1])
    native.rms_quantize(
        x.data_ptr(), weight.data_ptr(), eps, *x.shape, out[0].data_ptr(), out[1].data_ptr(), torch.get_num_threads()
    )
    return out


def silu_mul_quantize(gate_up: Tensor) -> Activations:
    """Quantise `silu(gate) * up`, `gate_up` float32 [M, 2K] with the gates first."""
    native = _native()
    if native is None:
        gate, up = gate_up.chunk(2, 1)
        return _quantize(functional.silu(gate) * up)
    gate_up = gate_up.contiguous()
    rows, features = gate_up.shape[0], gate_up.shape[1] // 2
    out = _empty(rows, features)
    native.silu_mul_quantize(
        gate_up.data_ptr(), rows, features, out[0].data_ptr(), out[1].data_ptr(), torch.get_num_threads()
    )
    return out


def product(x: Activations, packed: Packed, out: Tensor | None = None, *, add: bool = False) -> Tensor:
    """`x @ packed.T + bias`, float32 [M, rows], written to `out` if given, or added to it if `add`.

    `out`'s rows must be contiguous. A row's result does not depend on how many rows `x` has.
    """
    native = _native()
    rows = x.codes.shape[1]
    if native is None:
        dense = x.dequantize()
        y = torch.cat([functional.linear(dense, part.dense(), part.bias) for part in packed.parts], 1)
        if out is None:
            return y
        return out.add_(y) if add else out.copy_(y)
    if out is None:
        out = torch.empty(rows, packed.rows)
    packed.matrix(native).forward(
        x.codes.data_ptr(), x.scales.data_ptr(), rows, out.data_ptr(), out.stride(0), add, torch.get_num_threads()
    )
    return out


def _empty(rows: int, features: int) -> Activations:
    groups = features // GROUP
    return Activations(torch.empty(groups, rows, GROUP, dtype=torch.int8), torch.empty(groups, rows, 2))


def _quantize(x: Tensor) -> Activations:
    groups = x.view(x.shape[0], -1, GROUP).transpose(0, 1)
    top = groups.abs().amax(2, keepdim=True)
    codes = (groups * torch.where(top > 0, 127 / top, 0)).round()
    scale = top / 127
    scales = torch.cat((scale, scale * codes.sum(2, keepdim=True)), 2)
    return Activations(codes.to(torch.int8).contiguous(), scales)


# --- Finding the native kernels, and not trusting them. ---


def native_path() -> str | None:
    """The instruction set that the products run on, or None when they run in torch."""
    native = _native()
    return None if native is None else str(native.cpu())


@functools.cache
def _native() -> Any:
    """`kvorum_native` on its fastest path that agrees with the twin, or None."""
    native = kernels()
    if native is None:
        return None
    for path in native.paths():
        native.use(path)
        if _agrees(native):
            return native
        warnings.warn(f"kvorum_native's path {path} is wrong on this processor and is not used.", stacklevel=2)
    return None


def _agrees(native: Any) -> bool:
    """Whether the products of every width that the kernels tell apart equal the twin's on random data."""
    random = torch.Generator().manual_seed(0)
    threads = torch.get_num_threads()
    for bits in (4, 7):
        for rows in (1, 2, 3, 4, 8, 11):
            weight = torch.randn(40, 96, generator=random)
            x = _quantize(torch.randn(rows, 96, generator=random))
            bias = torch.randn(40, generator=random)
            packed = Packed([pack_weight(weight, bits, bias)])
            want = functional.linear(x.dequantize(), packed.parts[0].dequantize(), bias)
            got = torch.full((rows, 40), torch.nan)
            packed.matrix(native).forward(
                x.codes.data_ptr(), x.scales.data_ptr(), rows, got.data_ptr(), 40, False, threads
            )
            if not torch.allclose(got, want, rtol=1e-4, atol=1e-4):
                return False
    return True
