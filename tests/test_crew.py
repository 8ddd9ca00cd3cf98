"""Crews at work: each that ships does what its file says; tools, memory, votes, deadlines, replays, kills.

What workers write is put into their mouths. How files are read is in test_crew_file; messages and votes by themselves
are in test_protocols.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Engine, Sampling
from kvorum.errors import BadRequest
from kvorum.harness.memory.memory import Memory
from kvorum.programs.crew.crew import crew
from kvorum.runs.injection import Injection
from kvorum.runs.run import Run
from kvorum.runs.start import Result
from kvorum.store.events import Event
from kvorum.store.memory.store import MemoryStore


def say(**fields: Any) -> str:
    return json.dumps(fields)


def call(tool: str, /, **given: Any) -> str:
    return f'<tool_call>\n{{"name": "{tool}", "arguments": {json.dumps(given)}}}\n</tool_call>'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVORUM_MEMORY", str(tmp_path / "memory.sqlite"))
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))


def work(file: str, lines: Mapping[str, Sequence[str]], *, engine: Engine | None = None, **options: Any) -> Result:
    said = [
        Injection("say", name, turn=turn, text=text, end=True)
        for name, texts in lines.items()
        for turn, text in enumerate(texts)
    ]
    given: dict[str, Any] = {"budget": Budget(ticks=6000), "inject": said, "retries": 0, "tokens": 900, **options}
    return (engine or toy_engine.fake(kv_tokens=40_000)).run(crew, "Say it.", crew=file, **given)


def notes(result: Result, kind: str) -> list[dict[str, Any]]:
    return [dict(event) for event in result.trace.events if event["event"] == "note" and event["kind"] == kind]


GOOD, BAD = say(remark="fine", decision="accept"), say(remark="wrong", decision="reject")


@pytest.mark.parametrize("channel", ["cache", "text"])
def test_review_mends_until_both_accept(channel: str) -> None:
    from kvorum.harness.crew_files.reading import shipped

    file = shipped("review").replace("channel: cache", f"channel: {channel}")
    lines = {"Writer": [say(text="First."), say(text="Second.")], "Ann": [GOOD, GOOD], "Ben": [BAD, GOOD]}
    result = work(file, lines)
    assert (result.answer, result.outcome) == ("Second.", "answered")
    assert [note["outcome"] for note in notes(result, "step")] == ["said", "short", "said", "accept"]
    assert notes(result, "outcome")[0]["outcome"] == "accept"
    told = [note for note in notes(result, "told") if note["worker"] == "Writer"]
    assert "Ann (check): " in told[1]["text"]
    assert "wrong" in told[1]["text"]
    assert "Say it." in told[0]["text"]
    assert "Say it." not in told[1]["text"]


def test_over_the_cache_nothing_that_was_said_is_encoded_again() -> None:
    lines = {"Writer": [say(text="word " * 60)], "Ann": [GOOD], "Ben": [GOOD]}
    from kvorum.harness.crew_files.reading import shipped

    fed = {
        channel: work(shipped("review").replace("channel: cache", f"channel: {channel}"), lines).ledger.prefill
        for channel in ("cache", "text")
    }
    assert fed["text"] - fed["cache"] > 2 * 5 * 60 * 0.9


def test_the_trace_has_messages_whole() -> None:
    """What a grammar puts in by itself, too: picked, forced and closing text together are one object after another."""
    engine = toy_engine.fake(kv_tokens=60_000)
    sampling = Sampling(temperature=1.0)
    result = engine.run(
        crew, "Say it.", crew="review", tokens=900, retries=0, sampling=sampling, budget=Budget(ticks=4000)
    )
    texts: dict[str, str] = {}
    posts = notes(result, "post")
    for event in result.trace.events:
        if event["event"] == "tick":
            for row in event["rows"]:
                texts[row["worker"]] = texts.get(row["worker"], "") + row.get("given", "") + row["text"]
        elif event["event"] == "note" and event["kind"] == "told":
            texts[str(dict(event)["worker"])] = ""
        elif event["event"] == "note" and event["kind"] == "post":
            worker = str(dict(event)["worker"])
            assert json.loads(texts[worker][texts[worker].index("{") :]) == dict(event)["fields"]
        elif event["event"] == "note" and event["kind"] == "closed":
            texts[str(dict(event)["worker"])] += str(dict(event)["text"])
    assert posts


def test_review_ends_after_its_steps_with_the_last_draft() -> None:
    lines = {"Writer": [say(text=f"Draft {at}.") for at in range(3)], "Ann": [BAD] * 3, "Ben": [BAD] * 3}
    result = work("review", lines)
    assert result.answer == "Draft 2."
    assert notes(result, "outcome")[0]["outcome"] == "cap"


def test_estimate_is_the_median_of_the_second_round() -> None:
    numbers = {"Ann": (1, 10), "Ben": (100, 30), "Cem": (5, 20)}
    lines = {name: [say(reason="so", number=number) for number in both] for name, both in numbers.items()}
    result = work("estimate", lines)
    assert result.answer == "20"
    told = [note["text"] for note in notes(result, "told") if note["worker"] == "Ann"]
    assert "Ben (alone)" not in told[0]
    assert '"number": 100' in told[1]


NOTES = {
    "Reader": [say(facts="The train leaves at nine. Ann pays.")],
    "Keeper": [
        call("recall", query="train"),
        call("remember", text="The train leaves at nine.") + "\n" + call("remember", text="Ann pays."),
        say(kept="Both."),
    ],
}


def test_notes_are_kept_in_the_shared_memory() -> None:
    result = work("notes", NOTES, memory="trip")
    assert result.answer == "Both."
    entries = Memory(namespace="trip").list()
    assert [(entry.text, entry.source) for entry in entries] == [
        ("The train leaves at nine.", "model:Keeper"),
        ("Ann pays.", "model:Keeper"),
    ]
    again = work("notes", {**NOTES, "Keeper": [say(kept="All known.")]}, memory="trip")
    assert "The train leaves at nine." in notes(again, "told")[0]["text"]
    with pytest.raises(BadRequest, match="--memory"):
        work("notes", NOTES)


@pytest.mark.parametrize("name", ["review", "estimate", "notes"])
def test_whatever_a_model_writes_a_crew_comes_to_an_end(name: str) -> None:
    """Words at random: only the grammar holds them, so that each message is one of its kind."""
    options: dict[str, Any] = {"memory": "x"} if name == "notes" else {}
    result = toy_engine.fake(kv_tokens=60_000).run(
        crew, "Say it.", crew=name, tokens=300, sampling=Sampling(temperature=1.0), budget=Budget(ticks=900), **options
    )
    for note in notes(result, "post"):
        assert note["fields"]
    assert notes(result, "outcome") or result.spent


SHELVES = """
workers:
  Ann: {role: You look., tools: [look, mark]}
  Ben: {role: You look., tools: [look, mark]}
steps:
  look:
    who: all
    ask: What is there?
    says: {text: text}
    deadline: 900
answer: {from: look.text, as: all}
"""
CALLED: list[str] = []


def look(shelf: str) -> str:
    """looks"""
    CALLED.append(f"look {shelf}")
    return f"apples on {shelf}"


def mark(shelf: str) -> str:
    """marks"""
    CALLED.append(f"mark {shelf}")
    return "marked"


LOOKS = {
    "Ann": [call("look", shelf="left"), call("mark", shelf="left"), say(text="Left.")],
    "Ben": [call("mark", shelf="right"), say(text="Right.")],
}


def test_workers_call_tools_side_by_side() -> None:
    CALLED.clear()
    result = work(SHELVES, LOOKS, tools=[look, mark])
    assert json.loads(result.answer or "") == {"Ann": "Left.", "Ben": "Right."}
    assert sorted(CALLED) == ["look left", "mark left", "mark right"]
    assert [note["result"] for note in notes(result, "tool")] == ["apples on left", "marked", "marked"]
    late = work(SHELVES.replace("900", "20"), LOOKS, tools=[look, mark])
    assert notes(late, "step")[0]["missing"].keys() <= {"Ann", "Ben"}
    assert set(notes(late, "step")[0]["missing"].values()) == {"late"}
    with pytest.raises(BadRequest, match="Ann is to have a tool"):
        work(SHELVES, LOOKS, tools=[look])


def test_a_replay_calls_nothing_and_is_the_same() -> None:
    first = work("notes", NOTES, memory="trip")
    Memory(namespace="trip").forget(Memory(namespace="trip").list()[0].id)
    again = work("notes", NOTES, memory="trip", replay=first.trace.events)
    assert not again.differences
    assert again.answer == first.answer
    assert len(Memory(namespace="trip").list()) == 1


def test_killed_anywhere_it_calls_nothing_twice(tmp_path: Path) -> None:
    """Cut behind each event that may not be lost, as a kill leaves it."""
    whole = work(SHELVES, LOOKS, tools=[look, mark])
    events: list[Event] = whole.trace.events
    for at in [
        at for at, e in enumerate(events) if e["event"] == "outside" or (e["event"] == "note" and e["kind"] == "asking")
    ]:
        before = [json.loads(json.dumps(event)) for event in events[: at + 1]]
        done = [event["name"] for event in before if event["event"] == "outside"]
        asked = [event["name"] for event in before if event["event"] == "note" and event["kind"] == "asking"]
        CALLED.clear()
        again = work(SHELVES, LOOKS, tools=[look, mark], replay=before)
        assert len(CALLED) == 3 - max(len(done), len(asked)), at
        assert again.answer == whole.answer, at


def test_the_budget_ends_it_with_what_there_is() -> None:
    lines = {"Writer": [say(text="First.")], "Ann": [GOOD], "Ben": [GOOD]}
    whole = work("review", lines)
    cut = work("review", lines, budget=Budget(ticks=whole.ledger.ticks - 4))
    assert (cut.answer, cut.outcome, cut.spent) == ("First.", "cut", "ticks")
    runs: list[Run] = []
    none = work("review", lines, budget=Budget(ticks=3), control=runs.append)
    assert (none.answer, none.outcome) == (None, "none")


def test_over_the_network_there_are_no_places() -> None:
    from kvorum.runs.parameters import RemoteLimits

    crew.check({"crew": SHELVES}, workers=2, remote=RemoteLimits())
    for name in ("tools", "mcp", "allow", "memory"):
        with pytest.raises(BadRequest, match="not over the network"):
            crew.check({name: crew.params[name]}, remote=RemoteLimits())
    with pytest.raises(BadRequest, match="names Ann, Ben"):
        toy_engine.fake().run(crew, "x", crew=SHELVES, workers=["Ben", "Ann"], tools=[look, mark])


def skill(folder: Path, name: str, body: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: How {name} is made.\n---\n{body}\n")


BREWERS = """
channel: {channel}
workers:
  Ann: {{role: You brew., skills: [tea]}}
  Ben: {{role: You brew., skills: [tea, coffee]}}
  Cem: You drink.
steps:
  brew: {{who: [Ann, Ben], ask: Brew., says: {{text: text}}, then: drink}}
  drink: {{who: Cem, ask: Drink., says: {{text: text}}}}
"""


def test_a_skill_is_seen_by_those_who_use_it_and_encoded_once(tmp_path: Path) -> None:
    body = "Use hot water. " * 30
    skill(tmp_path, "tea", body)
    skill(tmp_path, "coffee", "Grind it.")
    use = call("use_skill", name="tea")
    lines = {name: [use, use, say(text="Done.")] for name in ("Ann", "Ben")} | {"Cem": [say(text="Good.")]}
    fed: dict[str, int] = {}
    for channel in ("cache", "text"):
        result = work(BREWERS.format(channel=channel), lines, skills=[str(tmp_path)])
        assert result.answer == "Good."
        told = {name: [n["text"] for n in notes(result, "told") if n["worker"] == name] for name in lines}
        assert "How tea is made." in told["Ann"][0]
        assert "coffee" not in told["Ann"][0]
        assert "How coffee is made." in told["Ben"][0]
        assert "Skills" not in told["Cem"][0]
        for name in ("Ann", "Ben"):
            assert body.strip() in told[name][1]
            assert "already in your context" in told[name][2]
            assert "Use hot water" not in told[name][2]
        fed[channel] = result.ledger.prefill
        again = work(BREWERS.format(channel=channel), lines, skills=["gone"], replay=result.trace.events)
        assert (again.differences, again.answer) == ([], result.answer)
    assert fed["text"] - fed["cache"] >= len(body)
    with pytest.raises(BadRequest, match="--skills"):
        work(BREWERS.format(channel="text"), lines)
    with pytest.raises(BadRequest, match=r"no skill 'tee'; did you mean tea"):
        work(BREWERS.format(channel="text").replace("[tea]", "[tee]"), lines, skills=[str(tmp_path)])


def test_all_that_is_remembered_and_shown_stands_under_its_own_words(tmp_path: Path) -> None:
    """With more entries than are shown, over both channels: each text is that of its tokens."""
    store, runs = MemoryStore(), list[Run]()
    for at in range(10):
        store.remember(f"Train {at} leaves.", namespace="trip")
    for channel in ("cache", "text"):
        file = f"channel: {channel}\nmemory: read-only\nworkers: {{Ann: You go.}}\n"
        result = work(
            f"{file}steps: {{go: {{who: Ann, ask: Go., says: {{t: text}}}}}}",
            {"Ann": [say(t="x")]},
            memory="trip",
            control=runs.append,
        )
        told = notes(result, "told")[0]["text"]
        assert "(2 more entries" in told
        assert all(f"- Train {at} leaves." in told for at in range(2, 10))
        seen = runs[-1].workers[0].view
        assert told.split("The task")[0].strip() in toy_engine.tokenizer().decode(seen.ids)
