"""A run whose ranks are killed again and again, each time by another engine's, ends with the tokens it would have had.

Each life ends at a tick, and a moment in it, that are drawn: with a named error, and no process left. What the trace
holds then goes on with a fresh engine. KVORUM_VLLM_KILLS says how often, 20 in the long form; KVORUM_VLLM_KILLS_MODEL
names a real model, which is then laid out over two stages, in place of a tiny one that is cut over two ranks. Not
covered: kills while an engine starts.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from spread_engines import MARKS, Spread, gone, spread, toy, workers

import cli_calls
from kvorum import Budget, Engine, Sampling, programs
from kvorum.cli import main
from kvorum.errors import WorkersLost

pytestmark = MARKS
KILLS = int(os.environ.get("KVORUM_VLLM_KILLS", "2"))
MODEL = os.environ.get("KVORUM_VLLM_KILLS_MODEL")
DEGREES = (2, 1) if MODEL is None else (1, 2)
APART = 12
"""Ticks between two kills, at most."""
TOLD = 10.0
"""Seconds within which the death of a rank is told."""


def tokens(trace: Path) -> list[list[tuple[str, int]]]:
    return [[(row["worker"], row["token"]) for row in rows] for rows in cli_calls.ticks(trace)]


def run(engine: Engine, trace: Path) -> None:
    engine.run(
        programs.find("hogwild"),
        "Name two rivers.",
        workers=2,
        sampling=Sampling(0.8, seed=3),
        budget=Budget(ticks=APART * KILLS + 20),
        trace=trace,
        suppress_end=True,
    )


class Killer(threading.Thread):
    """Kills a rank of this process's once a trace has so many ticks. ``at``: when that was."""

    def __init__(self, trace: Path, ticks: int, choose: random.Random) -> None:
        super().__init__(daemon=True)
        self._trace, self._ticks, self._rank, self._wait = trace, ticks, choose.randrange(2), choose.uniform(0, 0.03)
        self.at, self.pids = 0.0, list[int]()
        self.start()

    def run(self) -> None:
        until = time.monotonic() + 300.0
        while time.monotonic() < until:
            if self._trace.exists() and self._trace.read_text().count('"event":"tick"') >= self._ticks:
                time.sleep(self._wait)
                self.pids, self.at = workers(os.getpid()), time.monotonic()
                os.kill(self.pids[self._rank], signal.SIGKILL)
                return
            time.sleep(0.005)


@pytest.mark.timeout(7200)
def test_killed_again_and_again(spread: Spread, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut, choose = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl", random.Random(19)
    model = MODEL or toy
    run(Engine.load(model, quantize=None, dtype="float32", kv_tokens=4096), whole)
    told = list[float]()
    for number in range(KILLS):
        killer = Killer(cut, (len(tokens(cut)) if number else 0) + choose.randrange(2, APART), choose)
        if number:
            main(["replay", str(cut), "--resume", "--quiet"])
            assert "A run that has a trace can be resumed" in capsys.readouterr().err
        else:
            engine = spread(model, *DEGREES, patience=60.0)
            with pytest.raises(WorkersLost, match="can be resumed"):
                run(engine, cut)
        told.append(time.monotonic() - killer.at)
        assert gone(killer.pids, 20.0)
        assert tokens(cut) == tokens(whole)[: len(tokens(cut))]
        print(f"{number + 1}: {len(tokens(cut))} ticks, told after {told[-1]:.1f} s")
    assert max(told) < TOLD
    assert main(["replay", str(cut), "--resume", "--quiet"]) in (0, 1)  # 1: nobody gave an answer
    assert tokens(cut) == tokens(whole)
