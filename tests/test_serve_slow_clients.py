"""Slow and hostile clients: heads that do not come, replies that are not read, more connections than may be.

Covers HTTP/1.1 and 1.0, a second request on a connection, and that others are served meanwhile. How much later others'
first tokens come under such clients is measured by no test; slow bodies are in `test_serve_guard.py`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import toy_engine
from serving import Served, served, text_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    engine = toy_engine.fake(name="toy")
    with served(engine, tmp_path, head_seconds=0.4, unread_seconds=0.4, connections=12) as up:
        yield up


def connect(server: Served) -> socket.socket:
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(20)
    line.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    return line


def said_before_the_end(line: socket.socket) -> int:
    """How many bytes come before the server ends the connection."""
    count = 0
    try:
        while data := line.recv(65536):
            count += len(data)
    except ConnectionResetError:
        pass
    return count


def works(server: Served) -> bool:
    body = {"model": "toy", "prompt": "a", "max_tokens": 2}
    return bool(text_of(server.post("/v1/completions", body)))


def test_a_head_that_does_not_come(server: Served) -> None:
    """Silence, and one byte now and then, in the first line and behind it, of either version."""
    for begun in (
        b"",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-",
        b"GET /health HTTP/1.0\r\nHost: localhost\r\n",
    ):
        with connect(server) as line:
            line.sendall(begun)
            cut = False
            for _ in range(100):
                try:
                    line.sendall(b"a")
                except OSError:
                    cut = True
                    break
                time.sleep(0.05)
            assert cut, begun
            assert works(server)


def test_a_second_head_that_does_not_come(server: Served) -> None:
    with connect(server) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
        line.sendall(b"GET /health HTTP/1.1\r\nX-")
        said_before_the_end(line)
    assert works(server)


def test_a_reply_that_is_not_read(server: Served) -> None:
    whole = len(server.http.get("/openapi.json").content)
    with connect(server) as line:
        line.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        time.sleep(2)
        assert works(server)
        assert said_before_the_end(line) < 200 * whole


def test_a_slow_head_ends_no_reply(server: Served) -> None:
    """A stream that outlasts the time of heads goes on, whatever begins behind it."""
    with served(toy_engine.fake(name="toy"), server.service.settings.store / "other", head_seconds=0.05) as other:
        body = {"model": "toy", "prompt": "a", "max_tokens": 400, "logit_bias": {"265": -100}}
        assert other.post("/v1/completions", body).json()["usage"]["completion_tokens"] == 400


def test_more_connections_than_may_be(server: Served) -> None:
    assert works(server)  # whose connection stays
    lines = [connect(server) for _ in range(11)]
    with connect(server) as line:
        assert line.recv(65536).startswith(b"HTTP/1.1 503")
    assert works(server)
    for line in lines:
        line.close()
    time.sleep(0.2)
    with connect(server) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_head_without_end_and_what_is_no_request(server: Served) -> None:
    """Each is refused in the API's own form before it has taken memory, and its connection ends."""
    host = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    many = host + b"X-One: yes\r\n" * (2**16 // 12)  # of which the last is too much
    for status, code, sent in (
        (431, "too_large", many),
        (431, "too_large", host + b"X: " + b"a" * 2**16 + b"\r\nY: b\r\n"),
        (400, "invalid_http", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, "invalid_http", b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n"),
        (400, "invalid_http", host + b"Host: elsewhere\r\nConnection: close\r\n\r\n"),
    ):
        with connect(server) as line:
            line.sendall(sent)
            reply = b""
            while part := line.recv(65536):
                reply += part
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), sent[:60]
        assert json.loads(body)["error"]["code"] == code
    with connect(server) as line, contextlib.suppress(ConnectionError):
        for _ in range(100):
            line.sendall(many)
        pytest.fail("it took 6 MB of headers")
    assert works(server)
