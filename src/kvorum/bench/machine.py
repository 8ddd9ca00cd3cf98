"""The machine that figures were taken on, and how fast it reads memory."""

from __future__ import annotations

import os
import platform
import resource
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kvorum.models.quantize import PackedLinear

PACKAGES = ("kvorum", "kvorum-native", "torch", "transformers", "llama-cpp-python")


def about() -> dict[str, Any]:
    """Processor, cores, threads, what the kernels found, versions and the date."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "date": date.today().isoformat(),
    }


def bandwidth(megabytes: int = 256, repeats: int = 5) -> float:
    """Bytes per second: the best of ``repeats`` sums over a buffer far beyond the caches, by all of torch's threads."""
    buffer = torch.ones(megabytes * 131072, dtype=torch.int64)
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        buffer.sum()
        best = max(best, buffer.nbytes / (time.perf_counter() - started))
    return best


def weight_bytes(model: nn.Module) -> int:
    """Bytes of weights that a tick reads: all but the input embedding, unless that is the output layer too."""
    packed = [module.packed.nbytes for module in model.modules() if isinstance(module, PackedLinear)]
    skipped = set()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    if isinstance(embedding, nn.Embedding) and embedding.weight is not getattr(head, "weight", None):
        skipped.add(embedding.weight)
    return sum(packed) + sum(p.nbytes for p in model.parameters() if p not in skipped)


def peak_memory() -> int:
    """The most bytes that this process has held so far. All sides of a comparison live in it."""
    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


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
