"""MCP servers as tools: what they say is read as it is and believed no further than it goes; hostile ones are held.

One server, ``mcp_server.py``, is started for each case as a process of its own. Servers from PyPI and npm are in the
slow lane; servers over HTTP are tested with the SDK's own server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, programs
from kvorum.cli import main
from kvorum.errors import BadRequest
from kvorum.harness.tools.mcp_config import ServerConfig, read_servers
from kvorum.jsontypes import Json, JsonObject
from kvorum.runs.injection import Injection
from kvorum.store.events import note_data

pytest.importorskip("mcp")
from kvorum.harness.tools import mcp

SERVER = str(Path(__file__).with_name("mcp_server.py"))


def config(mode: str, name: str = "test") -> ServerConfig:
    return ServerConfig(name, sys.executable, [SERVER, mode])


@contextmanager
def servers(*configs: ServerConfig, seconds: float = 20.0, chars: int = 1000) -> Iterator[mcp.Servers]:
    made = mcp.Servers(configs, seconds=seconds, chars=chars)
    try:
        yield made
    finally:
        made.close()


def listed(made: mcp.Servers, taken: set[str] | None = None) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = asyncio.run(made.listed(taken or set()))
    return found


def test_tools_are_listed_and_called() -> None:
    with servers(config("plain")) as made:
        echo, fail = listed(made)
        assert (echo["name"], echo["description"], echo["repeatable"]) == ("echo", "says it again", True)
        assert fail["repeatable"] is False
        outcome = made.call("test", "echo", {"text": "é\n"})
        assert (outcome.status, outcome.text) == ("ok", "echo: é\n\n(image, not shown)")
        outcome = made.call("test", "fail", {})
        assert (outcome.status, outcome.text) == ("error", "disk full")


@pytest.mark.parametrize("mode", ["banner", "loud", "headers"])
def test_what_is_no_message_is_passed_over_and_logged(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kvorum.tools"), servers(config(mode)) as made:
        assert [one["name"] for one in listed(made)] == ["echo"]
        assert made.call("test", "echo", {"text": "a"}).status == "ok"
    words = {"banner": "ready", "loud": "", "headers": "Content-Length"}[mode]
    assert ("server test wrote a line that is no message: " in caplog.text) == bool(words)
    assert words in caplog.text


def test_lists_in_pages_and_lists_without_an_end(caplog: pytest.LogCaptureFixture) -> None:
    with servers(config("pages")) as made:
        assert [one["name"] for one in listed(made)] == [f"tool{at}" for at in range(5)]
    assert not caplog.records
    with servers(config("endless")) as made:
        assert [one["name"] for one in listed(made)] == ["echo"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with servers(config("ever-new")) as made:
        assert [one["name"] for one in listed(made)] == ["echo", *(f"page{at + 1}" for at in range(mcp.MAX_PAGES))]
    assert caplog.text.count("the list of tools of the MCP server test does not end") == 2


def test_names_are_fit_distinct_and_stay() -> None:
    found = []
    for _ in range(2):
        with servers(config("names"), config("plain", "one"), config("plain", "two")) as made:
            found.append([str(one["name"]) for one in listed(made, {"fail"})])
    assert found[0] == found[1]
    assert len(set(found[0])) == 8
    assert all(len(name) <= 64 and name.replace("_", "a").replace("-", "a").isalnum() for name in found[0])
    assert {"one_echo", "two_echo", "one_fail"} <= set(found[0])


def test_hostile_descriptions_and_schemas_are_contained() -> None:
    with servers(config("orders")) as made:
        (told,) = listed(made)
        assert len(str(told["description"])) < 5000
        assert "\u001b" not in str(told["description"])
    with servers(config("bomb")) as made:
        assert [one["name"] for one in listed(made)] == ["echo"]


def test_output_without_end_a_hang_and_a_death_end_in_an_outcome() -> None:
    with servers(config("long"), chars=100) as made:
        assert len(made.call("test", "echo", {"text": ""}).text) == 101
    with servers(config("flood")) as made:
        outcome = made.call("test", "echo", {"text": ""})
        assert outcome.status == "error"
        assert "more than 4,000,000 bytes" in outcome.text
    with servers(config("die")) as made:
        for _ in range(2):  # it is started again
            outcome = made.call("test", "echo", {"text": ""})
            assert (outcome.status, outcome.text) == ("error", "error: test: out of ink")
    with servers(config("hang"), seconds=3.0) as made:
        listed(made)
        start = time.monotonic()
        assert made.call("test", "echo", {"text": ""}).status == "timeout"
        assert time.monotonic() - start < 30


@pytest.mark.parametrize(("mode", "words"), [("broken", "no such database"), ("silent", "nothing within 2 seconds")])
def test_a_server_that_does_not_start_says_why(mode: str, words: str) -> None:
    with servers(config(mode), seconds=2.0) as made, pytest.raises(BadRequest, match=words):
        listed(made)
    with servers(ServerConfig("none", "/no/such/program")) as made, pytest.raises(BadRequest, match="does not start"):
        listed(made)


def test_processes_end_with_the_run() -> None:
    with servers(config("plain")) as made:
        listed(made)
        assert _children()
    for _ in range(100):
        if not _children():
            break
        time.sleep(0.05)
    assert not _children()


def _children() -> list[str]:
    found = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if SERVER in line and line.split()[1] == str(os.getpid())]


def test_the_common_file_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "abc")
    path = tmp_path / "servers.json"
    first = {
        "command": "run",
        "args": ["--key=${TOKEN}", "${NOT_SET:-x y}"],
        "env": {"A": "${TOKEN}", "N": 3},
        "type": "stdio",
    }
    second = {"url": "http://localhost:1/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}}
    path.write_text(json.dumps({"mcpServers": {"one": first, "two": second, "off": {"disabled": True}}}))
    one, two = read_servers(str(path))
    assert (one.command, list(one.args), one.env) == ("run", ["--key=abc", "x y"], {"A": "abc", "N": "3"})
    assert (two.url, two.headers) == ("http://localhost:1/mcp", {"Authorization": "Bearer abc"})
    for given, words in (
        ({"command": "${NOT_SET}"}, "NOT_SET"),
        ({}, "either a command or a url"),
        ({"command": "a", "url": "http://b"}, "either a command or a url"),
        ({"url": "file:///etc"}, "neither http"),
        ({"command": "a", "args": "b"}, "no list of texts"),
        ({"command": "a", "env": {"A": []}}, "no object of texts"),
        ([], "no object"),
    ):
        path.write_text(json.dumps({"mcpServers": {"bad": given}}))
        with pytest.raises(BadRequest, match=words):
            read_servers(str(path))
    path.write_text("{")
    with pytest.raises(BadRequest, match="no JSON"):
        read_servers(str(path))
    with pytest.raises(BadRequest, match="cannot be read"):
        read_servers(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    "given",
    [
        ServerConfig("fetch", "uvx", ["mcp-server-fetch"]),
        ServerConfig("web", "npx", ["-y", "@playwright/mcp"]),
        ServerConfig("far", url="https://example.com/mcp"),
        ServerConfig("near", url="http://127.0.0.1.example.com/mcp"),
    ],
)
def test_what_reaches_the_network_is_refused_unless_allowed(given: ServerConfig) -> None:
    with pytest.raises(BadRequest, match=f"--allow {given.name}"):
        mcp.Servers([given], seconds=1.0, chars=10)
    mcp.Servers([given], [given.name], seconds=1.0, chars=10).close()
    assert not ServerConfig("files", "npx", ["server-filesystem", "/tmp"]).refusal
    assert not ServerConfig("here", url="http://[::1]:8000/mcp").refusal


def test_fetch_is_refused_by_name_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = {"command": sys.executable, "args": ["-c", f"open({str(tmp_path / 'ran')!r}, 'w')", "mcp-server-fetch"]}
    for servers, name in (({"fetch": {**command, "args": command["args"][:2]}}, "fetch"), ({"web": command}, "web")):
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
        assert main(["agent", "Look.", "--mcp", str(tmp_path / "mcp.json"), "--model", "smollm2-135m"]) == 2
        assert f"--allow {name}" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_server_over_http_that_is_started_again_gets_a_new_session() -> None:
    import uvicorn
    from mcp.server.mcpserver import MCPServer

    def serve(port: int) -> tuple[uvicorn.Server, threading.Thread]:
        made = MCPServer("test")
        made.tool()(lambda_add)
        server = uvicorn.Server(
            uvicorn.Config(made.streamable_http_app(), host="127.0.0.1", port=port, log_level="error", ws="none")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        return server, thread

    server, thread = serve(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    with servers(ServerConfig("http", url=f"http://127.0.0.1:{port}/mcp")) as made:
        assert [one["name"] for one in listed(made)] == ["lambda_add"]
        assert made.call("http", "lambda_add", {"a": 1, "b": 2}).text == "3"
        server.should_exit = True
        thread.join(20)
        server, thread = serve(port)
        outcome = made.call("http", "lambda_add", {"a": 2, "b": 2})
        if outcome.status == "error":  # the connection was cut, not refused: it says so, and the next call is fresh
            outcome = made.call("http", "lambda_add", {"a": 2, "b": 2})
        assert outcome.text == "4"
    server.should_exit = True
    thread.join(20)


def lambda_add(a: int, b: int) -> int:
    """adds"""
    return a + b


@pytest.fixture
def others(tmp_path: Path) -> dict[str, JsonObject]:
    """The reference servers of PyPI (git, fetch) and npm (filesystem, memory): installed ones, or by uvx and npx."""
    env = {key: os.environ[key] for key in os.environ if key.upper().endswith(("PROXY", "INDEX_URL", "REGISTRY"))}

    def entry(name: str, *arguments: str) -> JsonObject:
        package = name if name in ("mcp-server-git", "mcp-server-fetch") else f"@modelcontextprotocol/{name[4:]}"
        if (found := shutil.which(name)) is not None:
            return {"command": found, "args": list(arguments), "env": {**env, "PATH": os.environ["PATH"]}}
        runner = shutil.which("uvx" if package == name else "npx")
        if runner is None:
            pytest.skip(f"needs {name}, or uvx and npx")
        before = [] if package == name else ["-y"]
        return {"command": runner, "args": [*before, package, *arguments], "env": {**env}}

    (tmp_path / "tide.txt").write_text("high at noon")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return {
        "git": entry("mcp-server-git", "--repository", str(tmp_path)),
        "files": entry("mcp-server-filesystem", str(tmp_path)),
        "memory": entry("mcp-server-memory"),
        "fetch": entry("mcp-server-fetch"),
    }


@pytest.mark.slow
def test_servers_of_others_in_a_tool_loop(tmp_path: Path, others: dict[str, JsonObject]) -> None:
    """An agent lists their tools, calls each server and reads what comes; what reaches the network is refused."""
    file = tmp_path / "mcp.json"

    def work(servers: Mapping[str, JsonObject], calls: Sequence[tuple[str, JsonObject]]) -> list[dict[str, Json]]:
        file.write_text(json.dumps({"mcpServers": servers}))
        texts = [
            f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(given)}}}\n</tool_call>'
            for name, given in calls
        ]
        said = [
            Injection("say", "Alice", turn=turn, text=text, end=True) for turn, text in enumerate([*texts, "Done."])
        ]
        engine = toy_engine.fake(kv_tokens=120_000, max_positions=120_000)
        given: dict[str, Any] = {"mcp": str(file), "inject": said, "budget": Budget(ticks=9000), "tool_seconds": 120.0}
        result = engine.run(programs.agent, "Look.", **given)
        told = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "tool"]
        assert result.answer == "Done.", (result.outcome, result.spent, result.ledger, told)
        again = engine.run(programs.agent, "Look.", **given, replay=result.trace.events)
        assert again.differences == []
        return [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "tool"]

    with pytest.raises(BadRequest, match="fetch"):
        work(others, [])
    named = {name: entry for name, entry in others.items() if name != "fetch"}
    entity: JsonObject = {"name": "tide", "entityType": "fact", "observations": ["high at noon"]}
    told = work(
        named,
        [
            ("git_status", {"repo_path": str(tmp_path)}),
            ("read_text_file", {"path": str(tmp_path / "tide.txt")}),
            ("read_text_file", {"path": "/etc/passwd"}),
            ("create_entities", {"entities": [entity]}),
            ("read_graph", {}),
        ],
    )
    assert [note["status"] for note in told] == ["ok", "ok", "error", "ok", "ok"]
    results = [str(note["result"]) for note in told]
    assert "tide.txt" in results[0]
    assert "high at noon" in results[1]
    assert "high at noon" in results[4]
