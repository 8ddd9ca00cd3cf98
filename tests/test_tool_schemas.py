"""Schemas of tools that somebody else wrote: whatever one does, a call of its tool ends in a typed outcome, in time.

Covers: patterns that go back and forth for ever, references that double, that go round, to files and to the network,
deep nesting, schemas that are none; by `call` itself, as schemas of an MCP server that an agent uses without a grammar,
and the process that checks. Not covered: grammars of such schemas (test_grammar_schemas).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, programs
from kvorum.harness.tools import schema_check
from kvorum.harness.tools.call import Outcome, call
from kvorum.harness.tools.call_form import call_form
from kvorum.harness.tools.schema_check import is_plain, misfit
from kvorum.harness.tools.tool import Tool
from kvorum.jsontypes import Json
from kvorum.runs.injection import Injection
from kvorum.serve.turn_reader import TurnReader
from kvorum.store.events import note_data
from tool_schemas import BACK_AND_FORTH, HOSTILE, LISTED, nested, of_text


def called(schema: Any, given: Any, seconds: float = 2.0) -> Outcome:
    """A call of a tool with that schema, and that the loop went on meanwhile."""
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def both() -> Outcome:
        beating = asyncio.create_task(beat())
        await asyncio.sleep(0)
        made = Tool("echo", "", schema, lambda **given: "called")
        outcome = await call([made], "echo", json.dumps(given), seconds=seconds, chars=200)
        beating.cancel()
        beats.append(time.monotonic())  # a loop that stood still all the time has no other
        return outcome

    outcome = asyncio.run(both())
    assert max(b - a for a, b in pairwise(beats)) < seconds, "the loop stood still"
    return outcome


@pytest.mark.parametrize("name", HOSTILE)
def test_a_call_ends_in_time_with_an_outcome(name: str) -> None:
    schema, given, status, words = HOSTILE[name]
    began = time.monotonic()
    outcome = called(schema, given)
    assert outcome.status == status
    assert words in outcome.text
    assert time.monotonic() - began < 30


def test_what_fits_is_called() -> None:
    for schema, given in (
        (of_text(pattern="^a+$"), {"text": "aaa"}),
        (of_text(**{"$ref": "#/$defs/word"}) | {"$defs": {"word": {"type": "string"}}}, {"text": "a"}),
        (nested(50), {}),
        ({"$defs": {"n": {"properties": {"a": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}, {"a": {"a": {}}}),
    ):
        assert called(schema, given, 20.0) == Outcome("ok", "called")


def test_nothing_is_fetched() -> None:
    asked: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *words: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    where = f"http://127.0.0.1:{server.server_port}/schema.json"
    outcome = called(of_text(**{"$ref": where}), {"text": "a"}, 20.0)
    server.shutdown()
    server.server_close()
    assert (outcome.status, asked) == ("error", [])
    assert "nothing is fetched" in outcome.text


def test_plain_schemas_start_no_process() -> None:
    text: dict[str, Json] = {"type": "string", "maxLength": 9}
    plain: dict[str, Json] = {
        "type": "object",
        "properties": {"a": text, "b": {"type": "array", "items": {"anyOf": [text, {"enum": [1, 2]}]}}},
        "additionalProperties": False,
        "$schema": "http://json-schema.org/draft-07/schema#",
    }
    assert is_plain(plain)
    assert not any(is_plain(HOSTILE[name][0]) for name in ("back-and-forth", "names", "other-dialect", "doubling"))
    others: list[dict[str, Any]] = [
        {"uniqueItems": True},
        {"$ref": "#"},
        {"pattern": "a"},
        {"items": [{}]},
        {"$schema": []},
    ]
    for inside in others:
        assert not is_plain({"properties": {"a": {"anyOf": [inside]}}})


def test_a_process_that_is_gone_is_replaced_and_none_is_left_that_is_late() -> None:
    assert misfit(of_text(pattern="a"), {"text": "b"}, 20.0) == "'b' does not match 'a'"
    (first, *_) = schema_check._idle
    os.kill(first._process.pid, signal.SIGINT)  # Ctrl-C at the terminal reaches it too, and is not for it
    assert misfit(of_text(pattern="a"), {"text": "b"}, 20.0)
    assert first.lives
    first._process.kill()
    first._process.wait()
    assert misfit(of_text(pattern="a"), {"text": "a"}, 20.0) == ""
    before = len(schema_check._idle)
    with pytest.raises(TimeoutError):
        misfit(*BACK_AND_FORTH, 0.5)
    assert len(schema_check._idle) < before or before == 0
    assert all(process.lives for process in schema_check._idle)


@pytest.mark.skipif(sys.platform == "win32", reason="an alarm is of POSIX")
def test_a_process_whose_starter_was_killed_ends_itself() -> None:
    """Nobody waits any more, and the pattern would go on for ever."""
    process = schema_check._Process()
    assert process._process.stdin is not None
    schema, value = BACK_AND_FORTH
    line = json.dumps({"schema": schema, "value": value, "seconds": 0.5})
    process._process.stdin.write(line.encode() + b"\n")
    process._process.stdin.flush()
    assert process._process.wait(20) == -signal.SIGALRM
    process.end()


def test_an_agent_without_a_grammar_uses_such_a_server(tmp_path: Path) -> None:
    """Each call has its outcome, in time, and the run goes on."""
    pytest.importorskip("mcp")
    server = {"command": sys.executable, "args": [str(Path(__file__).with_name("mcp_server.py")), "schemas"]}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"bad": server}}))
    calls = [
        f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(HOSTILE[name][1])}}}\n</tool_call>'
        for name in LISTED
    ]
    lines = [Injection("say", "Alice", turn=at, text=text, end=True) for at, text in enumerate([*calls, "Done."])]
    began = time.monotonic()
    given: dict[str, Any] = {"mcp": str(tmp_path / "mcp.json"), "tool_seconds": 2.0, "grammar": False, "inject": lines}
    engine = toy_engine.fake(kv_tokens=40_000, max_positions=40_000)
    result = engine.run(programs.agent, "Look.", budget=Budget(ticks=9000), **given)
    assert result.answer == "Done."
    told = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "tool"]
    notes = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "tool_schema"]
    open_ = {note["tool"] for note in notes}  # no grammar can hold these: the tool's is that of any object
    assert open_ == {"file"}
    assert [note["tool"] for note in told] == LISTED
    for note in told:
        _, _, status, words = HOSTILE[str(note["tool"])]
        fits = note["tool"] in open_
        assert note["status"] == ("ok" if fits else status), note
        assert fits or words in str(note["result"])
    assert told[0]["status"] == "timeout"
    assert time.monotonic() - began < 120


def test_a_servers_reader_of_bare_calls_is_done_in_time() -> None:
    """A client's schema whose references double: what would be a call by it is words."""
    form = call_form(toy_engine.fake())
    bare = '{"name": "echo", "arguments": {"text": "a"}}'
    cases = ((of_text(type="string"), True), (HOSTILE["doubling"][0], False), (of_text(), True), (nested(900), False))
    for schema, fits in cases:
        began = time.monotonic()
        reader = TurnReader(form, [Tool("echo", "", schema)])
        words, _ = reader.step(bare, last=True)
        assert (reader.made, words) == ((1, "") if fits else (0, bare))
        assert time.monotonic() - began < 30
