"""A person's word on a call: every program that calls tools asks for it, and the terminal gives it.

Covers: agent, crew, thread (siblings that call at the same time too) and tree; a replay that asks nobody; the question
at the terminal, whoever answers it or nobody, and --yes. What workers write is put into their mouths. The page and the
API are in test_page_finding and test_serve_runs.
"""

from __future__ import annotations

import io
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Engine, Result, programs
from kvorum.cli import planned_run
from kvorum.cli.approval import ask_approval
from kvorum.cli.crew import asks_a_person
from kvorum.harness.tools.tool import tool
from kvorum.jsontypes import JsonObject
from kvorum.runs.injection import Injection
from kvorum.runs.run import Run
from kvorum.runs.steering import Command
from kvorum.store.events import Event

CALLED: list[str] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    CALLED.clear()


def look(shelf: str) -> str:
    """says what lies on a shelf"""
    CALLED.append(shelf)
    return f"apples on {shelf}"


ASKS: Any = [tool(look, approval=True)]
CALL = '<tool_call>\n{"name": "look", "arguments": {"shelf": "left"}}\n</tool_call>'
CREW = """
workers:
  Ann: {role: You look., tools: [look]}
steps:
  look: {who: Ann, ask: Look., says: {text: text}}
"""
USE = '"tooluse":{"tool_name":"look","parameters":{"shelf":"%s"}'
THREAD = ['{"reasoning":[{"thought":"t",' + USE % "left", ',"conclusion":"c"}],"answer":"7"}']
FORKS = {
    "": ['{"reasoning":[{"thought":"p","plan":["x","y"]', ',"conclusion":"both"}],"answer":"9"}'],
    "x": ['"thought":"first",' + USE % "left", ',"conclusion":"1"}'],
    "y": ['"thought":"second",' + USE % "right", ',"conclusion":"2"}'],
}


def said(name: str, *texts: str) -> list[Injection]:
    return [Injection("say", name, turn=turn, text=text, end=True) for turn, text in enumerate(texts)]


RUNS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "agent": (programs.agent, {"inject": said("Alice", CALL, "Done.")}),
    "crew": (programs.crew, {"crew": CREW, "inject": said("Ann", CALL, '{"text": "Done."}'), "retries": 0}),
    "thread": (programs.thread, {"script": {"": THREAD}}),
    "forks": (programs.thread, {"script": FORKS, "siblings": "forks", "width": 2}),
    "tree": (programs.tree, {"script": "<look>left</look>", "trees": 1, "tokens": 60, "workers": 1}),
}


def work(name: str, word: Callable[[int], Any], **options: Any) -> Result:
    """Run the program; ``word``: what is said to the question of that number."""
    program, given = RUNS[name]
    runs: list[Run] = []
    asked: list[int] = []

    def answer(event: Event) -> None:
        if event["event"] == "note" and event["kind"] == "approval":
            number = int(str(dict(event)["n"]))
            runs[0].commands.append(Command(word(len(asked)), text=str(number)))
            asked.append(number)

    engine = toy_engine.fake(kv_tokens=40_000)
    budget = Budget(ticks=4000)
    return engine.run(
        program, "Look.", tools=ASKS, budget=budget, control=runs.append, listener=answer, **{**given, **options}
    )


def statuses(result: Result) -> list[str]:
    events = [dict(event) for event in result.trace.events if event["event"] == "note" and event["kind"] == "tool"]
    return [str(event["status"]) for event in events]


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_called_that_nobody_approved(name: str) -> None:
    """And what was refused is told to the model as such."""
    result = work(name, lambda at: "refuse")
    assert CALLED == []
    assert set(statuses(result)) == {"refused"}
    again = work(name, lambda at: "approve", replay=result.trace.events)
    assert (CALLED, again.differences, again.answer) == ([], [], result.answer)


@pytest.mark.parametrize("name", RUNS)
def test_what_was_approved_is_called_and_a_replay_asks_nobody(name: str) -> None:
    result = work(name, lambda at: "approve")
    assert CALLED
    assert set(statuses(result)) == {"ok"}
    CALLED.clear()
    again = work(name, lambda at: "refuse", replay=result.trace.events)
    assert (CALLED, again.differences, again.answer) == ([], [], result.answer)


def test_of_two_calls_at_the_same_time_each_gets_its_own_word() -> None:
    result = work("forks", lambda at: "refuse" if at == 0 else "approve")
    assert CALLED == ["right"]
    assert statuses(result) == ["refused", "ok"]
    assert not work("forks", lambda at: "approve", replay=result.trace.events).differences


# -- the terminal --------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Somebody who has typed this."""

    def isatty(self) -> bool:
        return True


ASKED: JsonObject = {"n": 3, "tool": "look", "arguments": '{"shelf": "\x1b[2Jleft"}'}


@pytest.mark.parametrize(
    ("typed", "kind"), [("y\n", "approve"), ("YES\n", "approve"), ("n\n", "refuse"), ("\n", "refuse"), ("", "refuse")]
)
def test_the_question_at_the_terminal(
    typed: str, kind: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert ask_approval(ASKED, yes=False) == Command(kind, text="3")
    told = capsys.readouterr().err
    assert "look(" in told
    assert "[y/N]" in told
    assert "\x1b" not in told


def test_where_nobody_sits_it_is_refused_and_yes_asks_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert ask_approval(ASKED, yes=False).kind == "refuse"
    assert "nobody is here to ask: refused" in capsys.readouterr().err
    assert ask_approval(ASKED, yes=True).kind == "approve"
    assert capsys.readouterr().err == ""


class Planned:
    """A run of one of ``RUNS``, as the command makes it."""

    model, options, trace = "toy", {}, None  # type: ignore[var-annotated]

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self) -> None:
        """Nothing to refuse."""

    def run(self, engine: Engine, listener: Callable[[Event], None], control: Callable[[Run], None]) -> Result:
        program, given = RUNS[self.name]
        return engine.run(
            program, "Look.", tools=ASKS, budget=Budget(ticks=4000), listener=listener, control=control, **given
        )


@pytest.mark.parametrize(("yes", "typed"), [(True, None), (False, "y\n"), (False, "n\n"), (False, None)])
@pytest.mark.parametrize("name", ["agent", "crew"])
def test_a_run_at_the_terminal(name: str, yes: bool, typed: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_run, "loads_at_once", lambda *words: False)
    monkeypatch.setattr(planned_run, "load", lambda *words, **more: toy_engine.fake(kv_tokens=40_000))
    monkeypatch.setattr(sys, "stdin", io.StringIO() if typed is None else Terminal(typed))
    planned_run.perform(Namespace(quiet=True, json=False, lines=True, yes=yes, command="agent"), Planned(name))  # type: ignore[arg-type]
    assert list(CALLED) == (["left"] if yes or typed == "y\n" else [])


def test_a_crew_that_may_ask_is_shown_in_lines(tmp_path: Any) -> None:
    """A question between panes could not be read."""
    (tmp_path / "mine.py").write_text(
        "from kvorum.harness.tools.tool import tool\n\n\ndef look(shelf: str) -> str:\n    return shelf\n\n\n"
        "ASKS = tool(look, approval=True)\n"
    )
    servers: dict[str, Any] = {"one": {"command": "x"}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))

    def asks(tools: Sequence[str] = (), scripts: Sequence[str] = (), mcp: str = "") -> bool:
        return asks_a_person(Namespace(tools=tools, scripts=scripts, mcp=mcp))

    assert not asks()
    assert asks(scripts=["tide"])
    assert asks([f"{tmp_path}/mine.py:ASKS"])
    assert not asks([f"{tmp_path}/mine.py:look"], mcp=f"{tmp_path}/mcp.json")
    servers["one"]["approve"] = True
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    assert asks(mcp=f"{tmp_path}/mcp.json")
