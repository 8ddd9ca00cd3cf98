"""How much memory this process holds, and the most it has held since it last asked to forget."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes resident now, mapped files included; the peak where the system does not tell."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """The most bytes resident since `forget_peak`, or since the start where the system cannot forget."""
    scale = 1 if platform.system() == "Darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def forget_peak() -> None:
    """Begin the peak anew. Only Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available() -> int:
    """Bytes that new processes can take without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _status(field: str) -> int:
    if not _STATUS.exists():
        return 0
    found = (line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(next(found, "x 0").split()[1]) * 1024
