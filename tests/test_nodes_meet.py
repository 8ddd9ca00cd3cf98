"""How the nodes of one model meet, learn of each other's end, and what `kvorum follow` takes; no vLLM is needed.

Over real sockets of loopback. Not covered: the processes that they start (`tests/vllm/test_vllm_nodes.py`).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvorum.backends.vllm import nodes
from kvorum.backends.vllm.environment import interface, own_address
from kvorum.backends.vllm.nodes import Head, Member, Terms
from kvorum.backends.vllm.spread import Spread
from kvorum.cli.main import main
from kvorum.errors import BadRequest, WorkersLost


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_BEAT", 0.05)


def terms(count: int) -> Terms:
    spread = Spread(tensor_parallel=count, nodes=count).options()
    return Terms(versions={}, model="toy", files="", dtype="float32", trust_remote_code=False, spread=spread)


@pytest.fixture
def head(port: int) -> Iterator[Head]:
    made = Head("127.0.0.1", port, 3, terms(3))
    yield made
    made.end("over")


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def meet(head: Head, port: int) -> list[Member]:
    members = [Member("127.0.0.1", port, 5.0) for _ in range(2)]
    for member in members:
        member.came()
    told: list[int] = []
    head.wait(5.0, told.append)
    assert told[-1] == 2
    return members


def test_all_learn_the_terms_and_end_with_the_first(head: Head, port: int) -> None:
    members = meet(head, port)
    assert [member.node for member in members] == [1, 2]
    assert members[0].terms == terms(3)
    assert [member.over() for member in members] == [None, None]
    assert head.lost() is None

    def leave() -> None:
        for member in members:
            assert until(lambda: member.over() == "")  # noqa: B023 (called at once)
            member.leave()

    left = threading.Thread(target=leave)
    left.start()
    head.end()  # which waits for them
    left.join(10)
    assert [member.over() for member in members] == ["", ""]


def test_the_first_is_told_why_another_cannot_go_on(head: Head, port: int) -> None:
    first, second = meet(head, port)
    second.lose("Node 2 cannot go on: no room.")
    assert until(lambda: head.lost() == "Node 2 cannot go on: no room")  # nobody acknowledges what is told
    head.end("Node 2 is gone")
    assert until(lambda: first.over() == "Node 2 is gone")


def test_a_silent_node_is_taken_for_gone(head: Head, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = meet(head, port)
    assert head.lost() is None
    first.leave()  # its beats end, as those of a machine without power
    monkeypatch.setattr(nodes, "SILENT", 0.3)
    assert until(lambda: head.lost() is not None)
    assert str(head.lost()).startswith("Node 1 has given no sign of life")


def test_a_further_node_hears_that_the_first_is_gone(port: int) -> None:
    head = Head("127.0.0.1", port, 2, terms(2))
    member = Member("127.0.0.1", port, 5.0)
    assert member.over() is None
    del head  # and with it the store
    assert until(lambda: member.over() == "The first node is gone")
    member.leave()


def test_nodes_that_do_not_come_are_missed_by_number(head: Head, port: int) -> None:
    Member("127.0.0.1", port, 5.0).came()
    with pytest.raises(WorkersLost, match="1 of 2 further nodes did not come within"):
        head.wait(0.3, lambda here: None)


def test_a_place_where_nobody_can_listen_or_nobody_is(head: Head, port: int) -> None:
    with pytest.raises(BadRequest, match="give an address of this machine"):
        Head("127.0.0.1", port, 2, terms(2))
    with pytest.raises(BadRequest, match="give an address of this machine"):
        Head("192.0.2.77", port, 2, terms(2))
    with socket.create_server(("127.0.0.1", 0)) as free:
        other = int(free.getsockname()[1])
    with pytest.raises(WorkersLost, match="No first node answers"):
        Member("127.0.0.1", other, 0.5)


def test_the_head_listens_where_it_was_told_to_alone(head: Head, port: int) -> None:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, _, listening = line.split()[1].partition(":")
        if int(listening, 16) == port and line.split()[3] == "0A":
            assert address == "0100007F"
    table = Path("/proc/net/tcp6").read_text()
    assert f":{port:04X} 0000" not in table


def test_loopback_is_reached_from_loopback(port: int) -> None:
    assert own_address("127.0.0.1", port) == "127.0.0.1"
    assert interface("127.0.0.1") in ("lo", "lo0", None)
    assert interface("192.0.2.77") is None


@pytest.mark.parametrize("given", ["host:", ":1", "host:x", "host:70000"])
def test_the_command_takes_an_address(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["follow", given]) == 2
    assert "is no ADDRESS[:PORT]" in capsys.readouterr().err
