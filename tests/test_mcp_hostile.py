"""MCP servers that say too much, or the wrong thing, over both wires: each is contained, and ends in an outcome.

Covers: floods of small messages, of lines that are none and on standard error, during a call and after one that was too
late; descriptions that are spelled like marks of the model; renamed tools; over HTTP a session that was forgotten and a
version that is refused. What a client can do about two more reports: it sends a session's id with nothing but what
belongs to that session, and leaves the replay of a broken stream to the SDK, which asks for its own stream alone. The
servers written by hand speak the version of 2025-06-18; a new one, the SDK's own, is in test_mcp_client.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

import toy_engine
from kvorum import Budget, Run, program, programs
from kvorum.errors import BadRequest
from kvorum.harness.tools.mcp_config import ServerConfig
from kvorum.harness.tools.toolbox import Toolbox
from kvorum.runs.injection import Injection

pytest.importorskip("mcp")
from kvorum.harness.tools import mcp

SERVER = str(Path(__file__).with_name("mcp_server.py"))


@contextmanager
def running(mode: str, seconds: float = 30.0) -> Iterator[mcp.Servers]:
    made = mcp.Servers([ServerConfig("test", sys.executable, [SERVER, mode])], seconds=seconds, chars=1000)
    try:
        asyncio.run(made.listed(set()))
        yield made
    finally:
        made.close()


def processes() -> list[psutil.Process]:
    """The servers that still run; one that was killed and not yet waited for has ended."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # of which a zombie is one kind
            if SERVER in " ".join(one.cmdline()):
                found.append(one)
    return found


@pytest.mark.parametrize("mode", ["chatter", "junk", "stderr"])
def test_a_flood_of_what_is_small_ends_the_server(mode: str) -> None:
    with running(mode) as made:
        began = time.monotonic()
        outcome = made.call("test", "echo", {"text": ""})
        assert outcome.status == "error"
        assert "at once" in outcome.text
        assert time.monotonic() - began < 28, "it was ended, and not waited for"
        assert not processes()


def test_a_server_that_was_too_late_and_floods_afterwards_is_ended() -> None:
    with running("hang-then-chatter", 2.0) as made:
        assert made.call("test", "echo", {"text": ""}).status == "timeout"
        ends = time.monotonic() + 60
        while processes() and time.monotonic() < ends:
            time.sleep(0.1)
        assert not processes()


def test_what_is_spelled_like_a_mark_in_a_description_is_words(tmp_path: Path) -> None:
    """For an agent and for a crew: no end token stands in what a worker reads, and the words do."""
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"test": {"command": sys.executable, "args": [SERVER, "orders"]}}}))
    crew = "workers: {Ann: {role: You go., tools: [echo]}}\nsteps: {go: {who: Ann, ask: Go., says: {t: text}}}\n"
    plans: list[tuple[Any, dict[str, Any], str]] = [
        (programs.agent, {}, "Done."),
        (programs.crew, {"crew": crew}, '{"t": "x"}'),
    ]
    for plan, given, says in plans:
        runs: list[Run] = []
        engine = toy_engine.fake(kv_tokens=40_000, max_positions=40_000)
        name = "Ann" if given else "Alice"
        said = [Injection("say", name, turn=0, text=says, end=True)]
        engine.run(plan, "Look.", mcp=str(file), inject=said, control=runs.append, budget=Budget(ticks=900), **given)
        worker = runs[0].workers[0]
        ids = worker.view.ids
        text = engine.tokenizer.decode(ids)
        assert "end>" in text.split("Ignore all rules")[0]
        end = engine.tokenizer.eos_token_id
        assert end not in ids[: len(ids) - len(worker.ids)]


def test_a_renamed_tool_is_called_by_the_name_that_the_server_gave_it(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"test": {"command": sys.executable, "args": [SERVER, "names"]}}}))
    heard: dict[str, str] = {}

    @program("names", "calls every tool")
    async def names(run: Run) -> str | None:
        async with Toolbox([], str(file)) as box:
            for one in await box.open(run):
                assert one.function is not None
                heard[one.name] = one.function(text="a").text.split(":")[0]
        return "done"

    toy_engine.fake().run(names, "go", budget=Budget())
    assert len(heard) == 4
    assert sorted(heard.values()) == sorted(["a.b", "a_b", "x" * 80 + "1", "x" * 80 + "2"])
    assert all(len(name) <= 64 and "." not in name for name in heard)


class Web:
    """A server over HTTP, by hand: what it was sent, and what it answers to whom.

    It forgets the first session before its first call; ``plain``: it refuses every version in plain text.
    """

    def __init__(self, *, plain: bool = False) -> None:
        self.asked: list[tuple[str, str, str]] = []
        """Method, session and version of each request."""
        self.called = 0
        self._sessions: list[str] = []
        outer = self

        class Page(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                session = self.headers.get("Mcp-Session-Id") or ""
                version = self.headers.get("MCP-Protocol-Version") or ""
                outer.asked.append((body["method"], session, version))
                told = (body.get("params") or {}).get("_meta", {}).get("io.modelcontextprotocol/protocolVersion", "")
                assert not told or told == version, "header and body say the same"
                if plain:
                    self.tell(400, b"no such version", "text/plain")
                else:
                    self.tell(*outer.answer(body, session))

            def do_GET(self) -> None:
                self.tell(405, b"")

            do_DELETE = do_GET

            def tell(self, code: int, body: bytes, kind: str = "application/json", session: str = "") -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if session:
                    self.send_header("Mcp-Session-Id", session)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mcp"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, body: dict[str, Any], session: str) -> tuple[Any, ...]:
        """Code, body, kind and session."""
        method, number = body["method"], body.get("id")
        if number is None:
            return 202, b""
        result: dict[str, Any] = {}
        new = ""
        if method == "initialize":
            new = f"session-{len(self._sessions)}"
            self._sessions.append(new)
            info = {"name": "web", "version": "1"}
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
        elif method == "tools/list":
            result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        elif method == "tools/call" and session == "session-0":
            return 404, b""
        elif method == "tools/call":
            self.called += 1
            result = {"content": [{"type": "text", "text": f"in {session}"}]}
        else:
            error = {"code": -32601, "message": "no such method"}
            return 200, json.dumps({"jsonrpc": "2.0", "id": number, "error": error}).encode()
        return 200, json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode(), "application/json", new

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_session_that_was_forgotten_is_begun_anew_and_the_call_is_made_once() -> None:
    web = Web()
    made = mcp.Servers([ServerConfig("web", url=web.url)], seconds=20.0, chars=1000)
    try:
        (echo,) = asyncio.run(made.listed(set()))
        outcome = made.call("web", str(echo["original"]), {})
    finally:
        made.close()
        web.close()
    assert (outcome.status, outcome.text, web.called) == ("ok", "in session-1", 1)
    assert [session for method, session, _ in web.asked if method == "tools/call"] == ["session-0", "session-1"]
    assert {session for method, session, _ in web.asked if method == "initialize"} == {""}, "none of before goes along"
    later = {version for method, session, version in web.asked if session}
    assert later == {"2025-06-18"}, "an older server's version is kept to"


def test_a_server_that_refuses_the_version_in_plain_text_is_named() -> None:
    web = Web(plain=True)
    made = mcp.Servers([ServerConfig("web", url=web.url)], seconds=20.0, chars=1000)
    try:
        with pytest.raises(BadRequest, match="'web' does not start"):
            asyncio.run(made.listed(set()))
    finally:
        made.close()
        web.close()
