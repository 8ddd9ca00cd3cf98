"""From the command to the first token: `kvorum solve` in processes of its own, its trace watched."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from kvorum.bench.result import Asked, Timing
from kvorum.errors import BenchError
from kvorum.harness.process_tree import end_tree

WORKERS = 4
PROBLEM = "What is 17 * 23?"
SECONDS = 120.0


def first_token(asked: Asked, repeats: int) -> Timing:
    """Seconds from starting the command to the first picked token, of ``repeats`` runs after one that is not counted.

    Raises:
        BenchError: a run failed, or picked nothing within two minutes.
    """
    options = [*["--exact"] * asked.exact, *["--ignore-unknown"] * asked.ignore_unknown]
    return Timing.of([_run(asked.model, options) for _ in range(repeats + 1)][1:])


def _run(model: str, options: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.jsonl")
        words = ["solve", "--lines", "--model", model, "-p", "hogwild", "--workers", str(WORKERS), "--budget", "2"]
        words += [*options, "--seed", "1", "--trace", str(trace), PROBLEM]
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "kvorum.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while True:
                ended = process.poll() is not None  # asked before the trace is read, so its end is not missed
                if trace.exists() and '"tick"' in trace.read_text(encoding="utf-8", errors="replace"):
                    return time.perf_counter() - started
                if ended:
                    raise BenchError(f"kvorum solve ended with code {process.returncode} before its first token")
                if time.perf_counter() - started > SECONDS:
                    raise BenchError(f"kvorum solve had no token after {SECONDS:.0f} s")
                time.sleep(0.01)
        finally:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                end_tree(process.pid)
                process.wait()
