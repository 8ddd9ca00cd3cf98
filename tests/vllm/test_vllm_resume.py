"""A run that ends because a rank was killed goes on from its trace, with the tokens it would have had.

On a fresh engine of the same backend and degrees, which the trace says, and on the local one, by `kvorum replay`.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from spread_engines import MARKS, Spread, spread, toy, workers

import cli_calls
from kvorum import Budget, Engine, Sampling, programs
from kvorum.cli import main
from kvorum.errors import WorkersLost
from kvorum.store.traces import read

pytestmark = MARKS
TICKS = 150


def ticks(trace: Path) -> list[list[tuple[str, int]]]:
    """Who wrote which token, tick by tick; log-probabilities may differ in their last digit."""
    return [[(row["worker"], row["token"]) for row in rows] for rows in cli_calls.ticks(trace)]


def run(engine: Engine, trace: Path) -> None:
    team, how = programs.find("hogwild"), Sampling(0.8, seed=3)
    engine.run(
        team, "Name two rivers.", workers=2, sampling=how, budget=Budget(ticks=TICKS), trace=trace, suppress_end=True
    )


def test_a_run_whose_rank_was_killed_goes_on_elsewhere(spread: Spread, toy: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    run(Engine.load(toy, quantize=None, dtype="float32", kv_tokens=4096), whole)
    engine = spread(toy, 2, 1, patience=30.0)
    mine = workers(os.getpid())

    def kill() -> None:
        until = time.monotonic() + 60
        while not (cut.exists() and cut.read_text().count('"tick"') > 20) and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(mine[1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkersLost, match="can be resumed"):
        run(engine, cut)
    killer.join()
    begun = ticks(cut)
    assert 20 <= len(begun) < TICKS
    assert begun == ticks(whole)[: len(begun)]
    again = tmp_path / "again.jsonl"
    shutil.copy(cut, again)
    for trace, words in ((cut, ["--backend", "local"]), (again, [])):
        assert main(["replay", str(trace), "--resume", "--quiet", *words]) in (0, 1)  # 1: nobody gave an answer
        assert ticks(trace) == ticks(whole)
    told = [read(str(trace))[0] for trace in (whole, cut, again)]
    assert [start["event"] for start in told] == ["start"] * 3
    backends = [start["model"].get("backend", "local") for start in told if start["event"] == "start"]
    assert backends[:2] == ["local", "local"]
    assert backends[2].startswith("vllm")
