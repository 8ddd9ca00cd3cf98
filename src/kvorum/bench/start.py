"""From the command to the first token: commands in processes of their own, their traces watched.

Beside it what no command can do without: the interpreter with torch, and how long those take that need no model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvorum.bench.result import TORCH, WITHOUT_MODEL, Asked, Timing
from kvorum.errors import BenchError
from kvorum.harness.process_tree import end_tree

WORKERS = 4
PROBLEM = "What is 17 * 23?"
SECONDS = 120.0
_TEXT = "Alice has three cats. Bob has four dogs."
_FORM = {"type": "object", "properties": {"cats": {"type": "integer"}}}
_KVORUM = [sys.executable, "-m", "kvorum.cli"]


def first_token(asked: Asked, repeats: int) -> Timing:
    """Seconds from starting a team of four to the first picked token, of ``repeats`` runs after one not counted.

    Raises:
        BenchError: a run failed, or picked nothing within two minutes.
    """
    words = ["solve", "--lines", "-p", "hogwild", "--workers", str(WORKERS), "--budget", "8", "--seed", "1", PROBLEM]
    return Timing.of([_first(asked, words) for _ in range(repeats + 1)][1:])


def starts(asked: Asked, repeats: int) -> dict[str, Timing]:
    """Seconds to the first token of each command for one worker, of ``import torch`` alone, and of what needs no model.

    All take turns, after a first turn that is not counted. Raises BenchError, as ``first_token``.
    """
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            for name, seconds in _turn(asked, Path(folder)):
                found.setdefault(name, [])
                if turn:
                    found[name].append(seconds)
    return {name: Timing.of(times) for name, times in found.items()}


def _turn(asked: Asked, folder: Path) -> Iterator[tuple[str, float]]:
    text, form = folder / "text.txt", folder / "form.json"
    text.write_text(_TEXT, encoding="utf-8")
    form.write_text(json.dumps(_FORM), encoding="utf-8")
    yield TORCH, _whole([sys.executable, "-c", "import torch"])
    for name, words in zip(WITHOUT_MODEL, (["--help"], ["solve", "--no-such-option"]), strict=True):
        yield name, _whole([*_KVORUM, *words])
    yield "kvorum solve", _first(asked, ["solve", "--lines", "--budget", "2", PROBLEM])
    yield "kvorum ask", _first(asked, ["ask", str(text), "-q", "How many cats?", "--kept", "0"])
    # these tell no token before they are done: the whole command, for a number of a digit and for one decision
    for words in (["fields", str(text), "--schema", str(form)], ["decide", str(text), "-q", "Are there cats?"]):
        yield f"kvorum {words[0]}", _whole([*_KVORUM, *words, *_model(asked)], may_fail=False)


def _model(asked: Asked) -> list[str]:
    return [*["--exact"] * asked.exact, *["--ignore-unknown"] * asked.ignore_unknown, "--model", asked.model]


def _whole(command: Sequence[str], *, may_fail: bool = True) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode and not may_fail:
        raise BenchError(f"kvorum {command[3]} ended with code {done.returncode}: {done.stderr.strip()[-200:]}")
    return time.perf_counter() - started


def _first(asked: Asked, words: Sequence[str]) -> float:
    """Seconds until the trace of ``kvorum WORDS`` has a tick."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.jsonl")
        started = time.perf_counter()
        process = subprocess.Popen(
            [*_KVORUM, *words, *_model(asked), "--trace", str(trace)],
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
                    raise BenchError(f"kvorum {words[0]} ended with code {process.returncode} before its first token")
                if time.perf_counter() - started > SECONDS:
                    raise BenchError(f"kvorum {words[0]} had no token after {SECONDS:.0f} s")
                time.sleep(0.01)
        finally:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                end_tree(process.pid)
                process.wait()
