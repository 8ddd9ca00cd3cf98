"""A crew over a live server, its workers a small model with random weights: what they say has the file's form.

Covers: a run started over HTTP with a crew file's text and with one that ships, its messages and votes in the trace,
a replay of that trace, a file with a mistake refused with its line before anything runs, the budget; an agent, which
opens nothing of the machine. What crews do is in test_crew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import toy_engine
from kvorum import Budget, Engine
from kvorum.programs.crew.crew import crew
from kvorum.store.traces import read
from serving import Served, served

pytestmark = pytest.mark.forward

FILE = """
about: Three name a colour.
channel: {channel}
workers:
  Ann: You look by day.
  Ben: You look by night.
  Cem: You do not look.
steps:
  look:
    who: all
    ask: Which colour is it?
    says:
      colour: [blue, black]
      sure: yes or no
    vote: colour
    rule: majority
    then: {{short: look, absent: end}}
most: 2
answer: look.colour
"""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return toy_engine.engine(kv_tokens=16_384, name="toy")


@pytest.fixture(scope="module")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(engine, tmp_path_factory.mktemp("store"), ticks=600) as up:
        yield up


@pytest.mark.parametrize("channel", ["cache", "text"])
def test_what_is_said_has_the_form_and_votes_are_counted(
    server: Served, engine: Engine, channel: str, tmp_path: Path
) -> None:
    text = FILE.format(channel=channel)
    begun = server.run(program="crew", problem="The sky.", params={"crew": text})
    shown = server.until(begun["id"], "finished", "failed")
    assert shown["status"] == "finished", shown
    events = server.events(begun["id"])
    notes = [event for event in events if event["event"] == "note"]
    posts = [note for note in notes if note["kind"] == "post"]
    assert {post["worker"] for post in posts} == {"Ann", "Ben", "Cem"}
    assert all(post["fields"]["colour"] in ("blue", "black") for post in posts)
    assert all(post["fields"]["sure"] in (True, False) for post in posts)
    (vote,) = [note for note in notes if note["kind"] == "vote"][-1:]
    cast = [post["fields"]["colour"] for post in posts[-3:]]
    assert max(set(cast), key=cast.count) == shown["answer"]
    assert vote["votes"] == {colour: cast.count(colour) for colour in ("blue", "black")}
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(server.http.get(f"/v1/runs/{begun['id']}/trace").content)
    again = engine.run(crew, "The sky.", crew=text, replay=read(trace), budget=Budget())
    assert (again.differences, again.answer) == ([], shown["answer"])


def test_one_that_ships_ends_with_what_there_is(server: Served) -> None:
    begun = server.run(program="crew", problem="How many?", params={"crew": "estimate", "tokens": 40})
    assert server.until(begun["id"], "finished", "failed")["status"] == "finished"


def test_an_agent_works_for_others_and_opens_nothing_of_the_machine(server: Served) -> None:
    begun = server.run(program="agent", problem="Say a word.", params={"tokens": 8, "calls": 1})
    assert server.until(begun["id"], "finished", "failed")["status"] == "finished"
    for name, value in (("mcp", "servers.json"), ("memory", "house"), ("skills", ["/skills"])):
        reply = server.post("/v1/runs", {"problem": "x", "program": "agent", "params": {name: value}})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, f"params.{name}")


def test_a_mistake_is_told_with_its_line_before_anything_runs(server: Served) -> None:
    wrong = FILE.format(channel="cache").replace("vote: colour", "vote: color")
    reply = server.post("/v1/runs", {"problem": "x", "program": "crew", "params": {"crew": wrong}})
    assert reply.status_code == 400
    assert "line 15" in reply.json()["error"]["message"]
    assert "colour" in reply.json()["error"]["message"]
    two = {
        "problem": "x",
        "program": "crew",
        "workers": ["Ann", "Ben"],
        "params": {"crew": FILE.format(channel="text")},
    }
    assert "Ann, Ben, Cem" in server.post("/v1/runs", two).json()["error"]["message"]
