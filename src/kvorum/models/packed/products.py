"""Products of packed matrices with inputs that are quantised row by row, to signed 8 bits in groups of 32.

Every operation runs the native kernel where `kvorum.native_extension` has it, and otherwise a twin in torch with the
same quantisation, so the two differ by float rounding only. Covers float32 on the CPU. Not covered: GPUs, inputs that
are no multiple of 32, gradients.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kvorum.models.packed.matrix import GROUP, PackedMatrix, pack_weight
from kvorum.native_extension import Kernels, kernels


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


def quantize_rows(x: Tensor) -> Activations:
    """Quantise `x` float32 [M, K]."""
    native = verified_kernels()
    return _quantize(x) if native is None else _run(native.quantize, x, x.shape[1])


def rms_quantize(x: Tensor, weight: Tensor, eps: float) -> Activations:
    """Quantise `weight * x / sqrt(mean(x ** 2) + eps)`, `x` float32 [M, K], `weight` float32 [K]."""
    native = verified_kernels()
    if native is None:
        return _quantize(rms(x, weight, eps))
    return _run(native.rms_quantize, x, x.shape[1], weight.data_ptr(), eps)


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight * x / sqrt(mean(x ** 2) + eps)` over the last dimension."""
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


def silu_mul_quantize(gate_up: Tensor) -> Activations:
    """Quantise `silu(gate) * up`, `gate_up` float32 [M, 2K] with the gates first."""
    native = verified_kernels()
    if native is None:
        gate, up = gate_up.chunk(2, 1)
        return _quantize(functional.silu(gate) * up)
    return _run(native.silu_mul_quantize, gate_up, gate_up.shape[1] // 2)


def _run(kernel: Callable[..., None], x: Tensor, features: int, *norm: float) -> Activations:
    """What a native kernel makes of the rows of `x`; `norm`: the pointer to the weights of a norm, and its epsilon."""
    x, rows, groups = x.contiguous(), x.shape[0], features // GROUP
    out = Activations(torch.empty(groups, rows, GROUP, dtype=torch.int8), torch.empty(groups, rows, 2))
    to = out.codes.data_ptr(), out.scales.data_ptr()
    kernel(x.data_ptr(), *norm, rows, features, *to, torch.get_num_threads())
    return out


def product(x: Activations, packed: PackedMatrix, out: Tensor | None = None, *, add: bool = False) -> Tensor:
    """`x @ packed.T + bias`, float32 [M, rows], written to `out` if given, or added to it if `add`.

    `out`'s rows must be contiguous. A row's result does not depend on how many rows `x` has.
    """
    native = verified_kernels()
    if native is None:
        dense = x.dequantize()
        y = torch.cat([functional.linear(dense, part.dense, part.bias) for part in packed.parts], 1)
        if out is None:
            return y
        return out.add_(y) if add else out.copy_(y)
    return _multiply(native, x, packed, torch.empty(x.codes.shape[1], packed.rows) if out is None else out, add=add)


def _multiply(native: Kernels, x: Activations, packed: PackedMatrix, out: Tensor, *, add: bool = False) -> Tensor:
    to, row = out.data_ptr(), out.stride(0)
    packed.matrix(native).forward(
        x.codes.data_ptr(), x.scales.data_ptr(), x.codes.shape[1], to, row, add, torch.get_num_threads()
    )
    return out


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
    native = verified_kernels()
    return None if native is None else str(native.cpu())


@functools.cache
def verified_kernels() -> Kernels | None:
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


def _agrees(native: Kernels) -> bool:
    """Whether the products of every width that the kernels tell apart equal the twin's on random data."""
    random = torch.Generator().manual_seed(0)
    for bits in (4, 7):
        for rows in (1, 2, 3, 4, 8, 11):
            weight = torch.randn(40, 96, generator=random)
            x = _quantize(torch.randn(rows, 96, generator=random))
            bias = torch.randn(40, generator=random)
            packed = PackedMatrix([pack_weight(weight, bits, bias)])
            want = functional.linear(x.dequantize(), packed.parts[0].dequantize(), bias)
            got = _multiply(native, x, packed, torch.full((rows, 40), torch.nan))
            if not torch.allclose(got, want, rtol=1e-4, atol=1e-4):
                return False
    return True
