"""Runs whose views have placed spans, and runs that patch blocks, killed with SIGKILL and gone on with.

Covers a process of its own, killed as soon as its trace has so many lines, at moments from the seed; what is resumed
from the trace that it left has the tokens, the answer and the views of a run that nobody disturbed. The programs: fork
and join at one position, an outline and its sections, a thinker and a writer, texts of which a part is read again, and
one that patches and forgets between ticks. One moment of each here, more among the slow tests.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Result, Run, Sampling, Span, View, program, programs
from kvorum.runs.program import Program
from kvorum.store.traces import read

NURSERY = """
import json, os, sys, traceback
sys.path[:0] = {path!r}
import test_killed_placements as here
for line in sys.stdin:
    name, seed, trace = json.loads(line)
    if not (child := os.fork()):
        try:
            here.play(name, seed, trace=trace, slow=0.02)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""Imports what a run needs once, seconds of it, and has each run in a process of its own."""


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


TEXTS = {"note": "Mind this.", "letter": "Two and three are here.", "list": "One is there."}
PROGRAMS: dict[str, tuple[Program, dict[str, Any]]] = {
    "branch": (programs.branch, {"workers": 3, "tokens": 12, "answer": "text"}),
    "branch of votes": (
        programs.branch,
        {"workers": 2, "leaf": "vote", "leaf_params": {"workers": 2}, "tokens": 8, "answer": "text"},
    ),
    "patching": (patching, {}),
    "outline": (programs.outline, {"outline_tokens": 20, "least": 2, "sections": 2, "tokens": 8, "sees": "live"}),
    "async_reasoning": (programs.async_reasoning, {"every": 6, "think": 20, "final_tokens": 8}),
    "async_reasoning, mutual": (
        programs.async_reasoning,
        {"every": 6, "think": 20, "final_tokens": 8, "layout": "mutual", "thoughts": "reencode"},
    ),
    "patch": (programs.patch, {"documents": TEXTS, "first": 5, "tokens": 16}),
    "patch, most": (programs.patch, {"documents": TEXTS, "reread": "most", "compare": True, "tokens": 16}),
}


def play(name: str, seed: int, slow: float = 0.0, **options: Any) -> Result:
    found, params = PROGRAMS[name]
    warm = Sampling(temperature=1.0, banned=[265])
    given = {"budget": Budget(ticks=60), "sampling": warm, "seed": seed, **params, **options}
    if slow:
        given["listener"] = lambda event: time.sleep(slow)
    return toy_engine.engine().run(found, "What is 2+3?", **given)


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", NURSERY.format(path=sys.path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        yield made
        assert made.stdin is not None
        made.stdin.close()


def killed(nursery: subprocess.Popen[str], name: str, seed: int, lines: int, trace: Path) -> None:
    """Play it in a process of its own, which is killed once the trace has so many lines."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(json.dumps([name, seed, str(trace)]) + "\n")
    nursery.stdin.flush()
    child, end = int(nursery.stdout.readline()), time.monotonic() + 120
    while not trace.exists() or trace.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < end, "it does not come to be killed"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(int(nursery.stdout.readline())) == -signal.SIGKILL


def check(nursery: subprocess.Popen[str], name: str, seed: int, tmp_path: Path) -> None:
    whole = play(name, seed)
    trace = tmp_path / "run.jsonl"
    killed(nursery, name, seed, random.Random(f"{name} {seed}").randrange(3, len(whole.trace.events) - 3), trace)
    left = read(trace)
    assert 0 < len(left) < len(whole.trace.events)
    again = play(name, seed, replay=left)
    assert again.differences == []
    assert again.answer == whole.answer
    assert [worker.ids for worker in again.workers] == [worker.ids for worker in whole.workers]
    views = [[e["items"] for e in one.trace.events if e["event"] == "view"] for one in (again, whole)]
    assert views[0] == views[1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_was_killed_goes_on_with_the_same_tokens(nursery: Any, name: str, tmp_path: Path) -> None:
    check(nursery, name, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
@pytest.mark.parametrize("name", PROGRAMS)
def test_killed_at_many_moments(nursery: Any, name: str, seed: int, tmp_path: Path) -> None:
    check(nursery, name, seed, tmp_path)
