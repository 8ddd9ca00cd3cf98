"""CPU kernels of kvorum. The functions take addresses and sizes; kvorum takes them from `kvorum.native_extension`.

Importing it imports torch first, so that torch's OpenMP runtime is there to lend its threads.
"""

from __future__ import annotations

import torch  # noqa: F401

from ._native import (
    ABI,
    AttentionLayer,
    AttentionPlan,
    Decoder,
    Draws,
    Matrix,
    Rotation,
    have_threads,
    path,
    paths,
    quantize,
    rms_quantize,
    silu_mul_quantize,
    uniform,
    use,
)

__all__ = [
    "ABI",
    "AttentionLayer",
    "AttentionPlan",
    "Decoder",
    "Draws",
    "Matrix",
    "Rotation",
    "cpu",
    "have_threads",
    "path",
    "paths",
    "quantize",
    "rms_quantize",
    "silu_mul_quantize",
    "uniform",
    "use",
]


def cpu() -> str:
    """The path in use: "avx512vnni", "avx2" or "scalar", with "+threads" when torch's threads were found."""
    return path() + ("+threads" if have_threads() else "")
