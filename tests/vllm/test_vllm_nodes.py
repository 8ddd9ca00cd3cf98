"""One model over two "nodes", each of them processes of this machine that know of the other by its address alone.

Tensor or pipeline parallel, a team writes the tokens of one process; all listen on loopback; the further node ends with
the first, however that ends, and the first says so when the further one is gone. No process and no shared memory is
left. Not covered: two machines, and more than one process on each (vLLM refuses to take one machine for two then).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from spread_engines import LIMIT, MARKS, check_team, command, family, gone, lives, toy, workers

from kvorum import Engine, Row, View
from kvorum.backends.vllm.spread import SpreadOptions
from kvorum.errors import WorkersLost

pytestmark = MARKS
DEGREES = pytest.mark.parametrize(
    "degrees", [{"tensor_parallel": 2}, {"pipeline_parallel": 2}], ids=["tensor", "pipeline"]
)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def follower(port: int) -> Iterator[subprocess.Popen[str]]:
    """`kvorum follow`, which may start before the first node does."""
    with command("follow", f"127.0.0.1:{port}", "--patience", "60") as process:
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def listening(pids: list[int]) -> set[str]:
    """The IPv4 addresses beyond loopback, and all of IPv6, that processes listen on."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(os.readlink(link).removeprefix("socket:[").rstrip("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets:
                found.add(local.partition(":")[0])
    return found - {"0100007F", "00000000000000000000000001000000"}


def start(toy: Path, port: int, degrees: SpreadOptions) -> Engine:
    spread: SpreadOptions = {**degrees, "nodes": 2, "master_port": port, "patience": 60.0}
    return Engine.load(toy, backend="vllm", kv_tokens=4096, **spread)


@DEGREES
def test_two_nodes_write_the_tokens_of_one_process(
    toy: Path, port: int, follower: subprocess.Popen[str], degrees: SpreadOptions
) -> None:
    before = set(os.listdir("/dev/shm"))
    there = start(toy, port, degrees)
    pids = family(follower.pid) + workers(os.getpid())
    here = Engine.load(toy, quantize=None, dtype="float32", kv_tokens=4096)
    check_team((there, here), 0.8)
    assert listening([*pids, os.getpid()]) == set()
    there.backend.close()
    assert follower.wait(20) == 0, follower.communicate()[0]
    assert [pid for pid in pids if lives(pid)] == []
    assert set(os.listdir("/dev/shm")) <= before


@DEGREES
def test_a_further_node_that_is_killed_is_told_of(
    toy: Path, port: int, follower: subprocess.Popen[str], degrees: SpreadOptions
) -> None:
    there = start(toy, port, degrees)
    pids = workers(os.getpid())
    there.forward([Row(View(there.block()), ids=[1, 2])])
    os.killpg(follower.pid, signal.SIGKILL)
    with pytest.raises(WorkersLost, match="load it anew"):
        there.forward([Row(View(there.block()), ids=[1, 2])])
    there.backend.close()
    assert [pid for pid in pids if lives(pid)] == []


@pytest.mark.parametrize(("how", "codes"), [(signal.SIGINT, (130, 0)), (signal.SIGKILL, (-signal.SIGKILL, 1))])
def test_a_further_node_ends_with_the_first(
    toy: Path, port: int, follower: subprocess.Popen[str], how: signal.Signals, codes: tuple[int, int], tmp_path: Path
) -> None:
    before, trace = set(os.listdir("/dev/shm")), tmp_path / "trace.jsonl"
    words = ["solve", "Name rivers.", "-m", str(toy), "--exact", "--kv-tokens", "8192", "-p", "hogwild", "-w", "2"]
    spread = ["--backend", "vllm", "--tensor-parallel", "2", "--nodes", "2", "--master-port", str(port)]
    with command(*words, "-b", "ticks=3000", "-t", str(trace), *spread) as head:
        until = time.monotonic() + LIMIT
        while not (trace.exists() and '"tick"' in trace.read_text()) and time.monotonic() < until:
            assert head.poll() is None, head.communicate()[0]
            time.sleep(0.1)
        pids = family(head.pid) + family(follower.pid)
        os.killpg(head.pid, how) if how == signal.SIGINT else head.send_signal(how)
        said = head.communicate(timeout=30)[0]
        assert head.returncode == codes[0], said
    said = follower.communicate(timeout=30)[0]
    assert follower.returncode == codes[1], said
    assert gone(pids, 10.0)
    assert set(os.listdir("/dev/shm")) <= before
