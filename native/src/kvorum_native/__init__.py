"""CPU kernels of kvorum. The functions take addresses and sizes; kvorum takes them from `kvorum.native_extension`.

Importing it imports torch first, so that torch's OpenMP runtime is there to lend its threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

import torch


def _lend_threads() -> None:
    """Let the OpenMP runtime that torch has loaded be found by name, where torch keeps it to itself, as its builds for
    ARM do. Loads nothing."""
    if os.name != "posix" or hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        return
    package = Path(torch.__file__).parent
    for folder in (package / "lib", package.with_name("torch.libs")):
        for path in folder.glob("lib*omp*"):
            with contextlib.suppress(OSError):  # one that is not loaded stays so
                ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | ctypes.RTLD_GLOBAL)


_lend_threads()

from ._native import (  # noqa: E402
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
    """The path in use, one of ``paths()``, with "+threads" when torch's threads were found."""
    return path() + ("+threads" if have_threads() else "")
