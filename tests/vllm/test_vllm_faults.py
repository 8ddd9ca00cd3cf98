"""When a worker of vLLM's dies, hangs or fails: a named error, every later call says so, and no process is left.

Two ranks, so that one can wait for the other, tensor or pipeline parallel; each error within its stated limit. Ctrl-C
during ticks, between them, and while nothing is asked. Not covered: GPUs, and the death of a machine.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from spread_engines import (
    LIMIT,
    MARKS,
    Spread,
    check_team,
    command,
    family,
    gone,
    shared_memory,
    soon,
    spread,
    toy,
    workers,
)

from kvorum import Budget, Engine, Row, Sampling, View, programs
from kvorum.backends.vllm.workers import configure
from kvorum.errors import WorkersLost
from serving import served

pytestmark = MARKS
TOLD = 10.0
"""Seconds within which the death of a rank is told."""
PATIENCE = 25.0


def say(engine: Engine) -> None:
    engine.forward([Row(View(engine.block()), ids=[1, 2])])


@pytest.mark.parametrize(
    ("degrees", "rank", "how"),
    [
        ((2, 1), 0, signal.SIGKILL),
        ((2, 1), 1, signal.SIGKILL),
        ((2, 1), 0, signal.SIGSTOP),
        ((2, 1), 1, signal.SIGSTOP),
        ((1, 2), 0, signal.SIGKILL),
        ((1, 2), 1, signal.SIGKILL),
        ((1, 2), 0, signal.SIGSTOP),
    ],
)
def test_a_rank_that_dies_or_hangs_ends_the_engine(
    spread: Spread, toy: Path, degrees: tuple[int, int], rank: int, how: signal.Signals
) -> None:
    """A death is told within ten seconds, a silence after the patience."""
    engine = spread(toy, *degrees, patience=PATIENCE)
    mine = workers(os.getpid())
    assert len(mine) == 2
    say(engine)
    shared = [path for path in shared_memory(mine) if path.name.endswith(("cpushm_0", "cpushm_1"))]
    assert len(shared) == 2, "what ranks share on processors; queues go with the engine"
    block = engine.block()
    os.kill(mine[rank], how)
    begun = time.monotonic()
    with pytest.raises(WorkersLost, match="load it anew"):
        engine.forward([Row(View(block), ids=[1, 2])])
    took = time.monotonic() - begun
    assert took < (TOLD if how == signal.SIGKILL else PATIENCE + TOLD)
    assert len(block) == 0
    with pytest.raises(WorkersLost):
        say(engine)
    assert gone(mine, 20.0)
    engine.backend.close()
    assert not [path for path in shared if path.exists()]


@pytest.mark.parametrize("group", [False, True], ids=["killed", "terminated-together"])
def test_workers_end_with_the_process_that_started_them(toy: Path, tmp_path: Path, group: bool) -> None:
    """P101: also where they wait for each other, which they do not stop to look whether anybody is there."""
    trace = tmp_path / "trace.jsonl"
    words = ["solve", "Name rivers.", "-m", str(toy), "--exact", "--kv-tokens", "8192", "-p", "hogwild", "-w", "2"]
    spread = ["--backend", "vllm", "--tensor-parallel", "2", "-b", "ticks=3000", "-t", str(trace)]
    with command(*words, *spread) as head:
        until = time.monotonic() + LIMIT
        while not (trace.exists() and '"tick"' in trace.read_text()) and time.monotonic() < until:
            assert head.poll() is None, head.communicate()[0]
            time.sleep(0.1)
        pids = family(head.pid)
        assert len(pids) >= 3
        if group:
            os.killpg(head.pid, signal.SIGTERM)
        else:
            head.kill()
        assert gone(pids, 20.0)


def test_a_stopped_rank_is_seen_and_an_idle_one_is_no_fault(spread: Spread, toy: Path, tmp_path: Path) -> None:
    """P100 and P102: a server's /health; well again when the process goes on, and after a long rest; ill for good once
    a tick was waited for in vain."""
    engine = spread(toy, 2, 1, patience=PATIENCE)
    mine, ends = workers(os.getpid()), {str(end): -100 for end in engine.ends}
    with served(engine, tmp_path) as up:

        def health() -> tuple[int, str | None]:
            reply = up.http.get("/health")
            return reply.status_code, reply.json()["trouble"]

        def ask(tokens: int = 2) -> int:
            body = {"model": up.model, "prompt": "a", "max_tokens": tokens, "logit_bias": ends}
            return up.post("/v1/completions", body).status_code

        assert ask() == 200
        assert health() == (200, None)
        os.kill(mine[1], signal.SIGSTOP)
        assert soon(lambda: health() == (503, "A worker process is stopped."))
        os.kill(mine[1], signal.SIGCONT)
        assert soon(lambda: health() == (200, None))
        time.sleep(PATIENCE + 2)
        assert ask() == 200
        ticks = engine.ledger.ticks
        with ThreadPoolExecutor(1) as clients:
            asked = clients.submit(ask, 1500)
            assert soon(lambda: engine.ledger.ticks > ticks + 5)
            os.kill(mine[0], signal.SIGSTOP)
            assert ask() == 503  # at once, for it is seen
            assert asked.result() == 503
        assert gone(mine, 20.0)
        status, trouble = health()
        assert (status, "load it anew" in str(trouble)) == (503, True)
    engine.backend.close()


def test_a_rank_that_fails_while_another_waits_for_it(
    spread: Spread, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P103: its own error comes at once, not after the patience of who waits; both end, and a new engine goes on."""

    def faulty(*args: Any, **kwargs: Any) -> Any:
        made = configure(*args, **kwargs)
        made.parallel_config.worker_extension_cls = "faulty_rank.FaultyWorker"
        return made

    with monkeypatch.context() as patch:
        patch.setattr("kvorum.backends.vllm.load.configure", faulty)
        engine = spread(toy, 2, 1, patience=600.0)
    mine = workers(os.getpid())
    for _ in range(4):
        say(engine)
    begun = time.monotonic()
    with pytest.raises(WorkersLost, match="Rank 1 failed with RuntimeError: this tick fails; its engine has ended"):
        say(engine)
    assert time.monotonic() - begun < 60.0
    assert gone(mine, 20.0)
    again = spread(toy, 2, 1)
    say(again)
    again.backend.close()  # the next test looks at processes


def test_closing_leaves_no_process_and_no_shared_memory(spread: Spread, toy: Path) -> None:
    engine = spread(toy, 2, 1)
    mine = workers(os.getpid())
    shared = shared_memory(mine)
    assert shared
    say(engine)
    engine.backend.close()
    assert gone(mine, 12.0)
    assert not [path for path in shared if path.exists()]


@pytest.mark.parametrize("idle", [False, True], ids=["during-ticks", "idle"])
def test_an_interrupt_leaves_nothing_behind(toy: Path, tmp_path: Path, idle: bool) -> None:
    """Ctrl-C in a terminal goes to all processes of the command: to a run's, and to a server's that has no work."""
    trace = tmp_path / "trace.jsonl"
    model = ["-m", str(toy), "--exact", "--kv-tokens", "8192", "--backend", "vllm", "--tensor-parallel", "2"]
    run = ["solve", "Name rivers.", *model, "-p", "hogwild", "-w", "2", "-b", "ticks=3000", "-t", str(trace)]
    serve = ["serve", *model, "--port", "0", "--store", str(tmp_path / "store")]
    with command(*(serve if idle else run)) as head:
        assert head.stdout is not None
        if idle:
            while "http://" not in (line := head.stdout.readline()):
                assert line, "it has ended"
        else:
            assert soon(lambda: trace.exists() and '"tick"' in trace.read_text(), LIMIT), head.poll()
        pids = family(head.pid)
        assert len(pids) >= 3
        shared = shared_memory(pids)
        assert shared
        os.killpg(head.pid, signal.SIGINT)
        said = head.communicate(timeout=30)[0]
        assert head.returncode in (0, 130), said
    assert gone(pids, 10.0)
    assert not [path for path in shared if path.exists()]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C means what it does in a terminal, also where the tests are a shell's background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(engine: Engine, after: float | None) -> int:
    """Interrupt a run behind its tenth tick, or so many seconds later; how many ticks it had."""
    ticks = 0

    def ticked(*_: object) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 10 and after is None:
            signal.raise_signal(signal.SIGINT)
        elif ticks == 10:
            threading.Timer(after or 0.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    engine.scheduler.listener = ticked
    budget, how = Budget(ticks=1500), Sampling(0.8, seed=3)
    with pytest.raises(KeyboardInterrupt):
        engine.run(programs.find("hogwild"), "Name rivers.", workers=2, sampling=how, budget=budget, suppress_end=True)
    engine.scheduler.listener = None
    return ticks


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("degrees", [(2, 1), (1, 2)])
def test_interrupts_leave_the_engine_as_it_was(spread: Spread, toy: Path, degrees: tuple[int, int]) -> None:
    """Of who holds an engine: in a tick that stands still, between ticks, and at some moments of a run. Afterwards it
    computes what it should, and leaves nothing behind."""
    engine, here = spread(toy, *degrees, kv_tokens=8192), Engine.load(toy, quantize=None, dtype="float32")
    mine, block, free = workers(os.getpid()), engine.block(), engine.pool.free
    shared = shared_memory(mine)
    assert shared

    os.kill(mine[1], signal.SIGSTOP)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        engine.forward([Row(View(block), ids=[1, 2])])
    assert len(block) == 0
    del block  # it keeps the room that it had made
    os.kill(mine[1], signal.SIGCONT)
    check_team((engine, here), 0.8)

    for after in (None, 0.02, 0.05, 0.08):
        assert 10 <= interrupted(engine, after) < 1500
    check_team((engine, here), 0.0)
    gc.collect()  # what an interrupted run leaves in circles
    assert engine.pool.free == free
    engine.backend.close()
    assert gone(mine, 12.0)
    assert not [path for path in shared if path.exists()]
    with pytest.raises(WorkersLost, match="were ended"):
        say(engine)
