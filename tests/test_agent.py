"""The agent: thinks, calls, observes, until it answers; gone on with after a kill anywhere; full views lose results.

What it writes is put into its mouth, so that no model is needed; one run with a real model is in the slow lane.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Engine
from kvorum.cli.display.state import ShownRun, trace_clock
from kvorum.errors import BadRequest
from kvorum.harness.tools.tool import Tool, tool
from kvorum.kv import Span, View
from kvorum.programs.agent.agent import agent
from kvorum.runs.injection import Injection
from kvorum.runs.run import Run
from kvorum.runs.start import Result
from kvorum.runs.steering import Command
from kvorum.store.events import Event

CALLED: list[str] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    CALLED.clear()


def look(shelf: str) -> str:
    """says what lies on a shelf"""
    CALLED.append(f"look {shelf}")
    return {"left": "17 apples", "right": "25 apples"}.get(shelf, "no such shelf")


def add(a: int, b: int) -> int:
    """adds"""
    CALLED.append(f"add {a} {b}")
    return a + b


def fail(why: str) -> str:
    """fails"""
    raise RuntimeError(why)


LEFT = '<tool_call>\n{"name": "look", "arguments": {"shelf": "left"}}\n</tool_call>'
RIGHT = LEFT.replace("left", "right")
ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 17, "b": 25}}\n</tool_call>'
SCRIPT = (f"I look.\n{LEFT}", RIGHT, ADD, "There are 42.")


def work(
    script: Sequence[str] = SCRIPT, *, engine: Engine | None = None, tools: Sequence[Any] = (look, add), **options: Any
) -> Result:
    said = [Injection("say", "Alice", turn=turn, text=text, end=True) for turn, text in enumerate(script)]
    engine = engine or toy_engine.fake()
    given: dict[str, Any] = {"budget": Budget(ticks=4000), "inject": said, "tools": tools, **options}
    return engine.run(agent, "How many apples are there?", **given)


def ids_of(view: View) -> list[int]:
    """All tokens that a view shows; of a gap none."""
    spans = [item for item in view.items if isinstance(item, Span)]
    return [int(token) for span in spans for token in span.block.ids[span.lo : span.lo + len(span)]]


def notes(result: Result, kind: str) -> list[dict[str, Any]]:
    return [dict(event) for event in result.trace.events if event["event"] == "note" and event["kind"] == kind]


def test_it_calls_and_reads_and_answers() -> None:
    result = work()
    assert (result.answer, result.outcome) == ("There are 42.", "answered")
    assert CALLED == ["look left", "look right", "add 17 25"]
    assert [(note["tool"], note["status"], note["result"]) for note in notes(result, "tool")] == [
        ("look", "ok", "17 apples"),
        ("look", "ok", "25 apples"),
        ("add", "ok", "42"),
    ]


def test_what_it_reads_is_what_the_conversation_encoded_whole_would_be() -> None:
    """The last view, token for token, against the prompt of the whole history."""
    engine = toy_engine.fake()
    seen: list[Run] = []
    work(engine=engine, control=seen.append)
    run = seen[0]
    view = run.workers[0].view
    text = run.read([int(i) for item in view.items for i in item.block.ids[item.lo : item.lo + len(item)]])  # type: ignore[union-attr]
    for part in (
        "How many apples",
        LEFT,
        "<tool_response>\n17 apples\n</tool_response>",
        RIGHT,
        "25 apples",
        ADD,
        "42",
    ):
        before, there, text = text.partition(part)
        assert there, part
        del before
    assert "</tool_response>\n\nThere are 42." in text


def test_several_calls_of_one_turn_and_calls_without_their_mark() -> None:
    both = f"{LEFT}\n{RIGHT}"
    assert work((both, "42.")).answer == "42."
    assert CALLED == ["look left", "look right"]
    CALLED.clear()
    assert work(('So:\n```json\n{\n  "name": "look",\n  "arguments": {"shelf": "left"}\n}', "17.")).answer == "17."
    assert CALLED == ["look left"]


def test_errors_are_results() -> None:
    words = '<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>'
    result = work(
        (words % ("fail", '{"why": "no ink"}'), words % ("none", "{}"), words % ("add", '{"a": "x"}'), "No."),
        tools=(look, add, fail),
        grammar=False,
    )
    assert [note["status"] for note in notes(result, "tool")] == ["error"] * 3
    told = [note["result"] for note in notes(result, "tool")]
    assert told[0] == "error: RuntimeError: no ink"
    assert told[1] == "error: there is no tool 'none'; there are: look, add, fail"
    assert told[2] == "error: 'b' is a required property"
    assert result.answer == "No."


def test_after_the_last_call_it_must_answer() -> None:
    assert work((LEFT, "17."), calls=1).answer == "17."
    assert CALLED == ["look left"]


def test_a_replay_calls_nothing_and_is_the_same() -> None:
    first = work()
    CALLED.clear()
    again = work(replay=first.trace.events)
    assert not CALLED
    assert not again.differences
    assert again.answer == first.answer
    assert again.workers[0].ids == first.workers[0].ids


@pytest.mark.parametrize("repeatable", [False, True])
def test_killed_anywhere_it_goes_on_and_calls_nothing_twice(tmp_path: Path, repeatable: bool) -> None:
    """Cut behind each event of its trace in turn, as a kill leaves it; the half-written next line is dropped."""
    tools: list[Tool] = [tool(look, repeatable=repeatable), tool(add, repeatable=repeatable)]
    whole = work(tools=tools)
    events: list[Event] = whole.trace.events
    places = [at for at, event in enumerate(events) if event["event"] in ("outside", "note") or at % 100 == 0]
    for at in [place + 1 for place in places if events[place]["event"] != "end"]:
        before = [json.loads(json.dumps(event)) for event in events[:at]]
        done = [event["name"] for event in before if event["event"] == "outside"]
        asked = [event["name"] for event in before if event["event"] == "note" and event["kind"] == "asking"]
        CALLED.clear()
        path = tmp_path / "run.jsonl"
        path.write_text("\n".join(json.dumps(event) for event in before) + "\n")
        again = work(tools=tools, replay=before, trace=path)
        assert len(CALLED) == 3 - max(len(done), len(asked)), at
        cut = [note["status"] for note in notes(again, "tool")].count("interrupted")
        assert cut == (len(asked) > len(done)), at
        assert again.answer == whole.answer
        written = [json.loads(line) for line in path.read_text().splitlines()]
        assert [event["event"] for event in written][-1] == "end"
        if cut:
            assert not work(tools=tools, replay=written).differences


def test_a_resumed_run_that_is_killed_again_loses_no_result(tmp_path: Path) -> None:
    """The new trace takes the old one's place only when it has all of it, results behind the last tick too."""
    events = work().trace.events
    last = max(at for at, event in enumerate(events) if event["event"] == "outside")
    before = [json.loads(json.dumps(event)) for event in events[: last + 1]]
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(json.dumps(event) for event in before) + "\n")

    def killed(event: Event) -> None:
        kept = [json.loads(line) for line in path.read_text().splitlines()]
        assert sum(one["event"] == "outside" for one in kept) >= 3, event

    work(replay=before, trace=path, listener=killed)


def big(shelf: str) -> str:
    """says much"""
    return "word " * 40


LEFT_AS = {"splice": "hidden", "reencode": "forgotten", "gap": "hidden"}


@pytest.mark.parametrize("mode", LEFT_AS)
def test_a_full_view_loses_its_oldest_results_and_says_so(mode: str) -> None:
    calls = [LEFT.replace("look", "big").replace("left", name) for name in ("a", "b", "c", "d")]
    seen: list[Run] = []
    engine = toy_engine.fake()
    given: dict[str, Any] = {"tools": (big,), "rules": "", "prune": mode, "tokens": 150, "control": seen.append}
    whole = work((*calls, "Done."), engine=engine, **given)
    assert not notes(whole, "prune")
    most = sum(len(item) for item in seen[0].workers[0].view.items) - 250
    seen.clear()
    result = work((*calls, "Done."), engine=toy_engine.fake(), **given, context=most)
    assert result.answer == "Done."
    gone = notes(result, "prune")
    assert gone
    assert all(note["tool"] == "big" for note in gone)
    assert {(note["mode"], note["left"]) for note in gone} == {(mode, LEFT_AS[mode])}
    screen = ShownRun(clock=trace_clock)
    for event in result.trace.events:
        screen.feed(event)
    told = f"> the result of big was removed to make room ({LEFT_AS[mode]})"
    assert [line.text for line in screen.workers["Alice"].lines].count(told) == len(gone)
    assert [note["lo"] for note in gone] == sorted(note["lo"] for note in gone)
    text = seen[0].read(ids_of(seen[0].workers[0].view))
    assert "<tool_response>\n[this result was removed to make room]\n</tool_response>" in text


def test_a_small_cache_makes_room_too() -> None:
    calls = [LEFT.replace("look", "big").replace("left", str(name)) for name in range(8)]
    engine = toy_engine.fake(kv_tokens=2700)
    result = work((*calls, "Done."), engine=engine, tools=(big,), rules="", tokens=150)
    assert result.answer == "Done."
    assert notes(result, "prune")


@pytest.mark.parametrize("word", ["approve", "refuse"])
def test_a_person_is_asked_where_a_tool_wants_it(word: str) -> None:
    runs: list[Run] = []

    def answer(event: Event) -> None:
        if event["event"] == "note" and event["kind"] == "approval":
            runs[0].commands.append(Command(word, text=str(event["n"])))  # type: ignore[typeddict-item]

    tools = [tool(look, approval=True), tool(add)]
    result = work(tools=tools, control=runs.append, listener=answer)
    assert ("look left" in CALLED) == (word == "approve")
    assert notes(result, "tool")[0]["status"] == ("ok" if word == "approve" else "refused")
    CALLED.clear()
    assert work(tools=tools, replay=result.trace.events).answer == result.answer
    assert not CALLED


def test_tools_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text('def look(shelf: str) -> str:\n    """looks"""\n    return "17"\n\n\nTOOLS = [look]\nNUMBER = 3\n')
    assert notes(work((LEFT, "17."), tools=[f"{path}:TOOLS"]), "tool")[0]["result"] == "17"
    assert notes(work((LEFT, "17."), tools=[f"{path}:look"]), "tool")[0]["result"] == "17"
    for place, words in ((f"{path}:lok", "look"), (f"{path}:NUMBER", "no tool"), ("mine", "no place of a tool")):
        with pytest.raises(BadRequest, match=words):
            work(tools=[place])
    with pytest.raises(BadRequest, match="Two tools are named look"):
        work(tools=[look, f"{path}:look"])


def test_tools_of_a_server_are_replayed_without_it(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    path = tmp_path / "servers.json"
    server = {"command": sys.executable, "args": [str(Path(__file__).with_name("mcp_server.py")), "plain"]}
    path.write_text(json.dumps({"mcpServers": {"test": server}}))
    say = '<tool_call>\n{"name": "echo", "arguments": {"text": "hi"}}\n</tool_call>'
    result = work((say, "It said hi."), mcp=str(path))
    assert notes(result, "tool")[0]["result"].startswith("echo: hi")
    path.write_text(json.dumps({"mcpServers": {"test": {"command": "/no/such/program"}}}))
    again = work((say, "It said hi."), mcp=str(path), replay=result.trace.events)
    assert again.answer == "It said hi."


def test_what_looks_like_a_mark_in_a_result_is_words() -> None:
    def read(shelf: str) -> str:
        return "<end>"

    read.__name__ = "look"
    made: Callable[..., str] = read
    engine = toy_engine.fake()
    runs: list[Run] = []
    work((LEFT, "So."), tools=[made], engine=engine, control=runs.append)
    end = engine.tokenizer.eos_token_id
    assert end not in ids_of(runs[0].workers[0].view)[:-1]


@pytest.mark.slow
def test_a_real_model_calls_two_tools() -> None:
    engine = Engine.load("qwen2.5-coder-1.5b", kv_tokens=8192)
    engine.run(
        agent,
        "Use your tools: how many apples lie on the left and the right shelf together?",
        tools=[look, add],
        budget=Budget(ticks=300),
    )
    assert CALLED[:3] == ["look left", "look right", "add 17 25"]
