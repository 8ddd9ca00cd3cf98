"""An agent with a memory and skills: what it sees, its tools, replays that open neither, and going on after a kill.

What it writes is put into its mouth. Blocks, memory and skills themselves are in test_memory and test_skills.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget
from kvorum.errors import BadRequest
from kvorum.harness.memory.memory import Memory
from kvorum.kv import Span, View
from kvorum.programs.agent.agent import agent
from kvorum.runs.injection import Injection
from kvorum.runs.run import Run
from kvorum.runs.start import Result
from kvorum.store.events import Event
from kvorum.store.kept_blocks import KeptBlocks


def call(tool: str, /, **given: str) -> str:
    return f'<tool_call>\n{{"name": "{tool}", "arguments": {json.dumps(given)}}}\n</tool_call>'


SCRIPT = (
    call("remember", text="The cellar code is 4711."),
    call("use_skill", name="tea"),
    call("read_skill_file", name="tea", file="times.txt"),
    call("use_skill", name="tea"),
    "Four minutes.",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVORUM_MEMORY", str(tmp_path / "memory.sqlite"))
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "skills" / "tea"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: tea\ndescription: How tea is made.\n---\nUse hot water, not milk.\n")
    (folder / "times.txt").write_text("black: 4 minutes")


def work(tmp_path: Path, script: tuple[str, ...] = SCRIPT, **options: Any) -> Result:
    said = [Injection("say", "Alice", turn=turn, text=text, end=True) for turn, text in enumerate(script)]
    given: dict[str, Any] = {
        "budget": Budget(ticks=4000),
        "inject": said,
        "memory": "house",
        "skills": [str(tmp_path / "skills")],
        "rules": "",
        **options,
    }
    return toy_engine.fake(kv_tokens=24576).run(agent, "How long does tea take?", **given)


def seen_by(run: Run) -> str:
    view: View = run.workers[0].view
    spans = [item for item in view.items if isinstance(item, Span)]
    return run.read([int(token) for span in spans for token in span.block.ids[span.lo : span.lo + len(span)]])


def notes(result: Result) -> list[tuple[str, str]]:
    events = [event for event in result.trace.events if event["event"] == "note" and event["kind"] == "tool"]
    return [(str(note["status"]), str(note["result"])) for note in map(dict, events)]


def test_it_sees_what_it_remembers_and_switches_skills_on(tmp_path: Path) -> None:
    Memory(namespace="house").remember("Tea is in the left drawer.")
    runs: list[Run] = []
    result = work(tmp_path, control=runs.append)
    assert result.answer == "Four minutes."
    assert [status for status, _ in notes(result)] == ["ok"] * 4
    assert notes(result)[1:] == [
        ("ok", "The skill tea is now in your context; follow it."),
        ("ok", "black: 4 minutes"),
        ("ok", "The skill tea is already in your context; follow it."),
    ]
    text = seen_by(runs[0])
    order = ["How tea is made.", "left drawer", "Use hot water", "How long does tea", "remember", "use_skill"]
    places = [text.index(words, 0 if at < 4 else text.index("How long does tea")) for at, words in enumerate(order)]
    assert places == sorted(places)
    assert text.count("Use hot water") == 1
    entries = Memory(namespace="house").list()
    assert [(entry.text, entry.source) for entry in entries][1:] == [("The cellar code is 4711.", "model:Alice")]


def test_the_text_of_a_skill_moves_what_follows_and_encodes_nothing_again(tmp_path: Path) -> None:
    """Tokens fed behind the call are the result's and no others: the turn before stays as it was."""
    fed: dict[str, int] = {}
    for name, script in (("with", SCRIPT[1:2]), ("without", (call("use_skill", name="tee"),))):
        result = work(tmp_path, (*script, "Four."), grammar=False)
        fed[name] = result.ledger.prefill
    said = len("The skill tea is now in your context; follow it.") + 200
    assert fed["with"] - fed["without"] < said


def test_a_replay_opens_no_memory_and_reads_no_folder(tmp_path: Path) -> None:
    first = work(tmp_path)
    (tmp_path / "memory.sqlite").unlink()
    for path in sorted((tmp_path / "skills").glob("**/*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    again = work(tmp_path, replay=first.trace.events)
    assert not again.differences
    assert again.answer == first.answer
    assert again.workers[0].ids == first.workers[0].ids
    assert not (tmp_path / "memory.sqlite").exists()


def test_killed_anywhere_the_memory_has_each_entry_once(tmp_path: Path) -> None:
    """Cut behind each event that may not be lost, as a kill leaves it."""
    whole = work(tmp_path)
    events: list[Event] = whole.trace.events
    places = [at for at, event in enumerate(events) if event["event"] in ("outside", "note")]
    assert len(places) > 8
    for at in places:
        (tmp_path / "memory.sqlite").unlink(missing_ok=True)
        before = [json.loads(json.dumps(event)) for event in events[: at + 1]]
        if any(event["event"] == "outside" and event["name"] == "remember" for event in before):
            Memory(namespace="house").remember("The cellar code is 4711.")
        again = work(tmp_path, replay=before)
        assert again.answer == whole.answer, at
        assert [entry.text for entry in Memory(namespace="house").list()] == ["The cellar code is 4711."], at


def test_blocks_that_are_kept_change_nothing(tmp_path: Path) -> None:
    Memory(namespace="house").remember("Tea is in the left drawer.")
    kept = KeptBlocks(tmp_path / "kept")
    runs = [work(tmp_path, SCRIPT[1:], kept=kept, who_writes="read-only") for _ in range(2)]
    assert runs[0].workers[0].ids == runs[1].workers[0].ids
    assert [run.ledger.prefill for run in runs] == [runs[0].ledger.prefill] * 2
    assert list((tmp_path / "kept").glob("*/*"))


def test_a_full_view_keeps_skills_and_memory(tmp_path: Path) -> None:
    Memory(namespace="house").remember("Tea is in the left drawer.")
    runs: list[Run] = []
    script = (SCRIPT[1], *[call("read_skill_file", name="tea", file="times.txt")] * 5, "Done.")
    (tmp_path / "skills" / "tea" / "times.txt").write_text("word " * 60)
    whole = work(tmp_path, script, control=runs.append, tokens=120)
    most = sum(len(item) for item in runs[0].workers[0].view.items) - 200
    result = work(tmp_path, script, control=runs.append, tokens=120, context=most)
    assert (whole.answer, result.answer) == ("Done.", "Done.")
    assert any(event["event"] == "note" and event["kind"] == "prune" for event in result.trace.events)
    text = seen_by(runs[1])
    assert "Use hot water" in text
    assert "left drawer" in text


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no skill in"):
        work(tmp_path, skills=[str(tmp_path / "none")])
    with pytest.raises(BadRequest, match="namespace="):
        work(tmp_path, memory="no such/../name")
    remote = [name for name in ("memory", "skills", "scripts") if not agent.parameter(name).local]
    assert not remote
