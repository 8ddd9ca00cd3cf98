"""When a worker of vLLM's dies, hangs or fails: a named error, every later call says so, and no process is left.

Two ranks, so that one can wait for the other. Not covered: GPUs, and the death of a machine.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from spread_engines import MARKS, Spread, gone, spread, toy, workers

from kvorum import Engine, Row, View
from kvorum.errors import WorkersLost

pytestmark = MARKS


def say(engine: Engine) -> None:
    engine.forward([Row(View(engine.block()), ids=[1, 2])])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_or_hangs_ends_the_engine(spread: Spread, toy: Path, how: signal.Signals, rank: int) -> None:
    engine = spread(toy, 2, 1, patience=8.0)
    mine = workers(os.getpid())
    assert len(mine) == 2
    say(engine)
    block = engine.block()
    os.kill(mine[rank], how)
    with pytest.raises(WorkersLost, match="load it anew"):
        engine.forward([Row(View(block), ids=[1, 2])])
    assert len(block) == 0
    with pytest.raises(WorkersLost):
        say(engine)
    assert gone(mine, 12.0)
    engine.backend.close()


def test_closing_leaves_no_process_and_no_shared_memory(spread: Spread, toy: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    engine = spread(toy, 2, 1)
    mine = workers(os.getpid())
    say(engine)
    engine.backend.close()
    assert gone(mine, 12.0)
    assert set(os.listdir("/dev/shm")) <= before
