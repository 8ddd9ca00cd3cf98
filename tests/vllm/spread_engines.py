"""Engines on vLLM's workers, for tests in an environment of their own: `make test-vllm`.

Test files import the fixtures, what several of them compare, and ``MARKS``: they are skipped where vLLM is not
installed, and slow where it is, since a start takes 10 to 80 seconds, most of it imports in each process.
KVORUM_VLLM_PROGRAMS says how many random programs are run, 300 in the long form.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import VOCAB
from kvorum import Budget, Engine, Sampling, programs
from kvorum.backends.vllm.versions import installed
from test_forward_oracle import close
from toy_engine import model, tokenizer
from view_programs import Maker, Places, play, really_met

LIMIT = 300.0
"""Seconds until a command has begun to compute."""
PROGRAMS = int(os.environ.get("KVORUM_VLLM_PROGRAMS", "12"))
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(installed() is None, reason="vLLM is not installed here: make test-vllm"),
    # vLLM and torch warn of each other's old names
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
Spread = Callable[..., Engine]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("toy")
    model(torch.float32).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def spread() -> Iterator[Spread]:
    """Starts engines that end with the tests of a file."""
    with contextlib.ExitStack() as stack:

        def start(
            model: Path | str,
            tensor: int = 1,
            pipeline: int = 1,
            *,
            patience: float = 120.0,
            kv_tokens: int = 4096,
            kv_dtype: str = "auto",
        ) -> Engine:
            engine = Engine.load(
                model,
                backend="vllm",
                tensor_parallel=tensor,
                pipeline_parallel=pipeline,
                patience=patience,
                kv_tokens=kv_tokens,
                kv_dtype=kv_dtype,
            )
            stack.callback(engine.backend.close)
            return engine

        yield start


@contextlib.contextmanager
def in_this_process(folder: Path, **options: Any) -> Iterator[Engine]:
    """An engine whose model is in this process. vLLM's groups of processes are made anew for the next one: those of one
    without experts do not do for one with."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    try:
        engine = Engine.load(folder, backend="vllm", executor="uni", **{"dtype": "float32", **options})
        try:
            yield engine
        finally:
            engine.backend.close()
    finally:
        cleanup_dist_env_and_memory()


def check_view_programs(there: Engine, here: Engine, examples: int) -> None:
    """So many random view programs give the same on both engines, every logit and hidden state; placed spans, siblings
    and patched blocks are among what they hold."""
    met = Counter[str]()

    @settings(max_examples=examples)
    @given(data=st.data(), kind=st.sampled_from((Maker, Places)))
    def check(data: st.DataObject, kind: type[Maker]) -> None:
        maker = kind(data.draw, here, vocab=VOCAB, width=32)
        maker.make(data.draw(st.integers(2, 14)))
        close(play(there, maker.script), maker.played, 1e-4)
        met.update(maker.reached)

    check()
    really_met(met, placed=0.1, siblings=0.08, patched=0.02)


def check_team(engines: Iterable[Engine], temperature: float) -> None:
    """A team writes the same tokens on all engines."""
    told = []
    for engine in engines:
        team, how = programs.find("hogwild"), Sampling(temperature, seed=3)
        result = engine.run(team, "Name two rivers.", workers=2, sampling=how, budget=Budget(ticks=24))
        told.append([worker.ids for worker in result.workers])
    assert all(one == told[0] for one in told)
    assert all(told[0])


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers(of: int) -> list[int]:
    """Process ids of a process's children that vLLM has named as its workers."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
            if stat and int(stat.rpartition(")")[2].split()[1]) == of and "Worker" in (entry / "comm").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def gone(pids: list[int], within: float) -> bool:
    """Whether all of them have ended; one that nobody has waited for yet has."""
    return soon(lambda: not any(lives(pid) for pid in pids), within)


def shared_memory(pids: list[int]) -> set[Path]:
    """What processes have mapped of /dev/shm, with a name or, by now, without."""
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids)
    return {Path(name) for name in re.findall(r"(/dev/shm/\S+)", maps)}


def soon(true: Callable[[], bool], within: float = 10.0) -> bool:
    """Whether it comes true within so many seconds."""
    until = time.monotonic() + within
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def command(*words: str) -> subprocess.Popen[str]:
    """`kvorum` in a process, and a group of processes, of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "kvorum.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
