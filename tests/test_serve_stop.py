"""A server that is told to stop: nobody takes half a reply for a whole one, and nobody is left without a sentence."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import Process, Served
from tiny_folder import tiny_file

LONG = {"model": "tiny", "prompt": "a", "max_tokens": 8000, "temperature": 0}


def lines(server: Served, path: str, seen: list[str], begun: threading.Event, body: Any = None) -> None:
    """All lines of a stream; ``begun`` once there are some."""
    ask = server.http.stream("GET" if body is None else "POST", path, json=body)
    with ask as reply:
        for line in reply.iter_lines():
            if line:
                seen.append(line)
                begun.set()


def endless(server: Served) -> dict[str, Any]:
    """A request whose greedy reply goes round and round."""
    for letter in "abcdefghijklmnopqrstuvwxyz":
        body = LONG | {"prompt": letter}
        if server.post("/v1/completions", body | {"max_tokens": 600}).json()["choices"][0]["finish_reason"] == "length":
            return body
    raise AssertionError("All end.")


def stopped(process: Process) -> tuple[int, str, float]:
    """Its exit code, what it said on standard error, and the seconds that it took to end."""
    since = time.monotonic()
    said = process.process.communicate(timeout=60)[1]
    return process.process.returncode, said, time.monotonic() - since


@pytest.fixture(scope="module")
def folder() -> Path:
    return tiny_file(positions=100_000)


def test_open_streams_end_with_the_reason(folder: Path, tmp_path: Path) -> None:
    """A reply and a run's events are open, two requests wait; then the process is told to stop."""
    options = ["--kv-tokens", "1000000", "--max-rows", "2", "--drain", "1.5"]
    process = Process(folder, tmp_path, *options)
    server = process.up
    long = endless(server)
    run = server.run(program="solo", workers=1, budget={"ticks": 9}, model="tiny", paused=True)["id"]
    asked: dict[str, Any] = {
        "/v1/completions": long | {"stream": True},
        f"/v1/runs/{run}/events": None,
    }
    seen: dict[str, list[str]] = {path: [] for path in asked}
    begun = {path: threading.Event() for path in asked}
    with ThreadPoolExecutor(8) as pool:
        open_ones = [pool.submit(lines, server, path, seen[path], begun[path], body) for path, body in asked.items()]
        assert all(each.wait(30) for each in begun.values())
        waiting = [pool.submit(server.post, "/v1/completions", LONG | {"stream": stream}) for stream in (False, True)]
        end = time.monotonic() + 30
        while "kvorum_requests_waiting 2.0" not in server.http.get("/metrics").text:
            assert time.monotonic() < end
        process.process.send_signal(signal.SIGTERM)
        since = time.monotonic()
        refused = [each.result(30) for each in waiting]
        assert time.monotonic() - since < 1.5  # at once, not when it is all over
        new = httpx.get(f"{server.url}/v1/models")
        for each in open_ones:
            each.result(30)
    for reply in (*refused, new):
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_stopping")
        assert reply.json()["error"]["message"] == "The server is stopping; ask again when it is back."
        assert int(reply.headers["retry-after"]) >= 1
    for path, found in seen.items():
        assert found[-1].startswith("data: {"), (path, found[-3:])
        assert json.loads(found[-1].removeprefix("data: "))["error"]["code"] == "server_stopping", path
        assert "data: [DONE]" not in found
        assert all(line.partition(": ")[0] in ("data", "event", "id", "retry") for line in found), path
    code, said, took = stopped(process)
    assert took < 12
    assert code in (0, -signal.SIGTERM)
    assert "Traceback" not in said
    server.http.close()
    process = Process(folder, tmp_path, *options)
    assert process.up.show(run)["status"] == "paused"  # as it was
    process.end()


def test_teams_behind_the_chat_end_with_the_reason(folder: Path, tmp_path: Path) -> None:
    """A team's open stream, and one that is waited for, seeded and kept from ending by themselves."""
    process = Process(folder, tmp_path, "--kv-tokens", "200000", "--drain", "0.5")
    server = process.up
    team = {"messages": [{"role": "user", "content": "Count to ten."}], "seed": 7, "max_tokens": 100_000}
    team |= {"model": "tiny:hogwild-4", "logit_bias": {"0": -100}}
    seen, begun = list[str](), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        stream = pool.submit(lines, server, "/v1/chat/completions", seen, begun, team | {"stream": True})
        whole = pool.submit(server.post, "/v1/chat/completions", team | {"model": "tiny:vote-2"})
        assert begun.wait(30)
        end = time.monotonic() + 30
        while len(server.http.get("/v1/runs").json()["data"]) < 2:
            assert time.monotonic() < end
        process.process.send_signal(signal.SIGTERM)
        assert httpx.post(f"{server.url}/v1/chat/completions", json=team).status_code == 503
        stream.result(30)
        reply = whole.result(30)
    assert "hogwild-4" in seen[0]
    assert json.loads(seen[-1].removeprefix("data: "))["error"]["code"] == "server_stopping"
    assert "data: [DONE]" not in seen
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_stopping")
    code, said, took = stopped(process)
    server.http.close()
    assert (code, said) == (-signal.SIGTERM, "")
    assert took < 12


def test_replies_that_end_in_time_are_whole(folder: Path, tmp_path: Path) -> None:
    process = Process(folder, tmp_path, "--drain", "30")
    server, seen, begun = process.up, list[str](), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        body = LONG | {"max_tokens": 300, "stream": True}
        stream = pool.submit(lines, server, "/v1/completions", seen, begun, body)
        whole = pool.submit(server.post, "/v1/completions", LONG | {"max_tokens": 300})
        assert begun.wait(30)
        process.process.send_signal(signal.SIGTERM)
        stream.result(60)
        reply = whole.result(60)
    assert seen[-1] == "data: [DONE]"
    assert (reply.status_code, reply.json()["choices"][0]["finish_reason"]) in ((200, "length"), (200, "stop"))
    code, said, _ = stopped(process)
    server.http.close()
    assert (code, said) == (-signal.SIGTERM, "")


def test_who_does_not_read_is_cut_off(folder: Path, tmp_path: Path) -> None:
    """A client that takes nothing more holds nobody up, and is no error."""
    process = Process(folder, tmp_path, "--drain", "0", "--kv-tokens", "100000")
    server = process.up
    run = server.run(program="solo", workers=1, budget={"ticks": 4000}, model="tiny")["id"]
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        client.sendall(f"GET /v1/runs/{run}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while server.show(run)["ticks"] < 1500 and server.show(run)["status"] == "running":
            time.sleep(0.1)
        server.http.close()
        process.process.send_signal(signal.SIGTERM)
        _, said, took = stopped(process)
    assert took < 12
    assert "Traceback" not in said
