"""Runs whose views have placed spans, and runs that patch blocks, killed with SIGKILL and gone on with.

Covers a process of its own, killed as soon as its trace has so many lines, at moments from the seed; what is resumed
from the trace that it left has the tokens, the answer and the views of a run that nobody disturbed. The programs: fork
and join at one position, and one that patches and forgets between ticks. A few moments here, more among the slow tests.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Result, Run, Sampling, Span, View, program, programs
from kvorum.runs.program import Program
from kvorum.store.traces import read

CHILD = """
import sys, time
sys.path[:0] = {path!r}
import test_killed_placements as here
here.play({name!r}, {seed}, trace=sys.argv[1], slow=0.02)
"""


@program("patching", "writes, reads what it wrote again behind a note, places it beside, and goes on")
async def patching(run: Run) -> str | None:
    worker = run.workers[0]
    note = run.block("note")
    await run.prefill(View(note), run.encode("Mind this."))
    worker.view = View(run.block("0"))
    worker.feed(run.encode("One two."))
    for turn in range(1, 7):
        for _ in range(4):
            await run.tick([worker])
        written = worker.own
        chosen = random.Random(turn).sample(range(len(written)), len(written) // 2)
        again, own = run.engine.patch(written, View(note), chosen), run.block(str(turn))
        beside = View(note, Span(again, at=0), own)
        worker.view = run.engine.forget(View(note, again, own), 0, 3) if turn % 2 else beside
    return worker.text


PROGRAMS: dict[str, tuple[Program, dict[str, Any]]] = {
    "branch": (programs.branch, {"workers": 3, "tokens": 12, "answer": "text"}),
    "branch of votes": (
        programs.branch,
        {"workers": 2, "leaf": "vote", "leaf_params": {"workers": 2}, "tokens": 8, "answer": "text"},
    ),
    "patching": (patching, {}),
}


def play(name: str, seed: int, slow: float = 0.0, **options: Any) -> Result:
    found, params = PROGRAMS[name]
    warm = Sampling(temperature=1.0, banned=[265])
    given = {"budget": Budget(ticks=60), "sampling": warm, "seed": seed, **params, **options}
    if slow:
        given["listener"] = lambda event: time.sleep(slow)
    return toy_engine.engine().run(found, "What is 2+3?", **given)


def killed(name: str, seed: int, lines: int, trace: Path) -> None:
    """Play it in a process of its own, which is killed once the trace has so many lines."""
    words = CHILD.format(path=sys.path, name=name, seed=seed)
    child = subprocess.Popen([sys.executable, "-c", words, str(trace)], stderr=subprocess.PIPE, text=True)
    while child.poll() is None and (not trace.exists() or trace.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    _, err = child.communicate()
    assert "Traceback" not in err, err


def check(name: str, seed: int, tmp_path: Path) -> None:
    whole = play(name, seed)
    trace = tmp_path / "run.jsonl"
    killed(name, seed, random.Random(f"{name} {seed}").randrange(3, len(whole.trace.events) - 3), trace)
    left = read(trace)
    assert 0 < len(left) < len(whole.trace.events)
    again = play(name, seed, replay=left)
    assert again.differences == []
    assert again.answer == whole.answer
    assert [worker.ids for worker in again.workers] == [worker.ids for worker in whole.workers]
    views = [[e["items"] for e in one.trace.events if e["event"] == "view"] for one in (again, whole)]
    assert views[0] == views[1]


def test_what_was_killed_goes_on_with_the_same_tokens(tmp_path: Path) -> None:
    check("branch of votes", 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
@pytest.mark.parametrize("name", PROGRAMS)
def test_killed_at_many_moments(name: str, seed: int, tmp_path: Path) -> None:
    check(name, seed, tmp_path)
