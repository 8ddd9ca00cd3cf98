"""Injections: words put in a worker's mouth, words it may not write, a stop, messages that are lost, late or changed.

Covers: each kind in the programs that know it, as the trace shows it; that it is recorded when it takes effect, once,
and not before; that a replay repeats it, a run resumed in its midst goes on with it, and the command takes it from the
trace alone; what is refused. Over caches, what a reader sees is read off its real views. Not covered: what the faults
made of these kinds are (test_faults.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvorum import Budget, Program, Result, Run, Sampling, programs
from kvorum.cli import main
from kvorum.errors import BadRequest
from kvorum.runs.injection import Injection
from kvorum.store.events import Event, FaultEvent, StartEvent
from kvorum.store.traces import read
from scripted_workers import fake, notes
from tiny_folder import tiny_folder

WARM = Sampling(temperature=1.0)
FREE: dict[str, Any] = {"final_tokens": 2}
TEAM: dict[str, Any] = {**FREE, "openings": False, "rules": "published", "suppress_markup": False, "ends": "line"}
NET: dict[str, Any] = {"graph": "0-1,1-2", "rounds": 2, "message_tokens": 60, "answer_tokens": 30, "retries": 0}
GAME: dict[str, Any] = {"rounds": 3, "proposal_tokens": 60, "vote_tokens": 30, "retries": 0}


def run(program: Program, *inject: Injection, workers: int = 3, ticks: int = 60, **options: Any) -> Result:
    given = {"budget": Budget(ticks=ticks), "sampling": WARM, "seed": 3, **options}
    return fake().run(program, "Go.", workers=workers, inject=inject, **given)


def rows(result: Result, worker: str) -> list[tuple[int, int, str]]:
    """(tick, token, text) of a worker's picks."""
    ticks = [event for event in result.trace.events if event["event"] == "tick"]
    return [(e["n"], r["token"], r["text"]) for e in ticks for r in e["rows"] if r["worker"] == worker]


def faults(events: Sequence[Event]) -> list[FaultEvent]:
    return [event for event in events if event["event"] == "fault"]


def start(events: Sequence[Event]) -> StartEvent:
    return next(event for event in events if event["event"] == "start")


def views(events: Sequence[Event], worker: str) -> list[dict[str, Any]]:
    """A worker's views: of each, name -> (lo, hi, length)."""
    told = [event["items"] for event in events if event["event"] == "view" and event["worker"] == worker]
    return [{item[0]: (item[1], item[2], item[4]) for item in items} for items in told]


# -- what a worker writes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [programs.solo, programs.vote, programs.hogwild])
def test_words_in_a_mouth(program: Program) -> None:
    count, options = (1, FREE) if program is programs.solo else (3, TEAM if program is programs.hogwild else FREE)
    plain = run(program, workers=count, **options)
    said = Injection("say", "Alice", "lie", at=5, text="It is 7. ")
    result = run(program, said, workers=count, **options)
    mine, before = rows(result, "Alice"), rows(plain, "Alice")
    assert mine[:5] == before[:5], "until then it writes what it would have written"
    assert "".join(text for _, _, text in mine[5:14]) == "It is 7. "
    assert len(mine) > 14, "and then it goes on by itself"
    (fault,) = faults(result.trace.events)
    assert (fault["mode"], fault["worker"], fault["tick"], fault["text"]) == ("lie", "Alice", 5, "It is 7. ")
    at = result.trace.events.index(fault)
    after = result.trace.events[at + 1]
    assert after["event"] == "tick"
    assert after["n"] == 5, "told in the tick in which it takes effect"
    assert not faults(run(program, Injection("say", "Alice", at=5, text="x"), workers=count, **options).trace.events), (
        "a line of a script is no fault"
    )


def test_an_end_and_a_turn() -> None:
    ended = run(programs.vote, Injection("say", "Bob", "early", at=3, text="Bye.", end=True), **FREE)
    mine = [row for row in rows(ended, "Bob") if row[0] < 40]
    assert "".join(text for _, _, text in mine[3:8]) == "Bye."
    assert mine[7][1] in start(ended.trace.events)["ends"]
    assert len(mine) == 8
    talk = [Injection("say", "Alice", turn=turn, text=f"Instruction: {turn}", end=True) for turn in range(3)]
    result = run(
        programs.roleplay,
        *talk,
        Injection("say", "Bob", "flip", turn=1, text="Instruction: no", end=True),
        workers=2,
        ticks=400,
        message_tokens=20,
    )
    assert notes(result, "outcome")[0]["outcome"] == "flipped"
    assert [note["text"] for note in notes(result, "told") if note["worker"] == "Bob"] == [
        "Instruction: 0",
        "Instruction: 1",
    ]


def test_what_may_not_be_written() -> None:
    greedy: dict[str, Any] = {"sampling": Sampling(), "ticks": 40, **FREE}
    plain = run(programs.solo, workers=1, **greedy)
    mark = max(plain.workers[0].text[:38], key=plain.workers[0].text.count)
    result = run(programs.solo, Injection("mute", "Alice", "withhold", text=mark), workers=1, **greedy)
    own = "".join(text for tick, _, text in rows(result, "Alice") if tick < 38)
    assert mark in plain.workers[0].text
    assert mark not in own
    assert [fault["tick"] for fault in faults(result.trace.events)] == [0]


@pytest.mark.parametrize("program", [programs.vote, programs.hogwild, programs.relay])
def test_a_stop(program: Program) -> None:
    options = TEAM if program is programs.hogwild else FREE
    if program is programs.relay:
        options = {"think": "text", "text_tokens": 20, **FREE}
    result = run(program, Injection("stop", "Alice", "crash", at=9), **options)
    assert len(rows(result, "Alice")) == 9, "and nobody makes it answer"
    assert max(rows(result, "Bob"))[0] > max(rows(result, "Alice"))[0]
    (fault,) = faults(result.trace.events)
    assert (fault["mode"], fault["worker"], fault["at"]) == ("crash", "Alice", 9)
    assert not [event for event in result.trace.events if event["event"] == "command"]


def test_a_stop_between_turns() -> None:
    result = run(programs.network, Injection("stop", "Bob", "crash", turn=1), ticks=400, **NET)
    assert len([note for note in notes(result, "told") if note["worker"] == "Bob"]) == 2, "it hears, and says nothing"
    assert len([note for note in notes(result, "told") if note["worker"] == "Alice"]) == 3
    assert len(faults(result.trace.events)) == 1


# -- what others get ---------------------------------------------------------------------------------------------------


def network(*inject: Injection) -> list[dict[str, Any]]:
    say = [
        Injection("say", name, turn=turn, text=json.dumps(dict.fromkeys(others, f"{name} {turn}")), end=True)
        for name, others in (("Alice", ["Bob"]), ("Bob", ["Alice", "Carol"]), ("Carol", ["Bob"]))
        for turn in range(2)
    ]
    result = run(programs.network, *say, *inject, ticks=600, **NET)
    mail = notes(result, "mail")
    told = [note["text"] for note in notes(result, "told") if note["worker"] == "Bob"]
    for note, text in zip(mail, told[1:], strict=True):
        for sender, words in note["got"]["Bob"]:
            assert f"Message from {sender}:\n{words}" in text, "the mail is what is told"
    return mail


def test_messages_on_a_graph() -> None:
    whole, lost, late = (
        network(*inject)
        for inject in (
            (),
            (Injection("link", "Alice", "drop", turn=2, to="Bob"),),
            (Injection("link", "Alice", "delay", turn=1, to="Bob", lag=1),),
        )
    )
    a, c = ([(name, f"{name} {number}") for number in (0, 1)] for name in ("Alice", "Carol"))
    assert [note["got"]["Bob"] for note in whole] == [[a[0], c[0]], [a[1], c[1]]]
    assert [note["got"]["Bob"] for note in lost] == [[a[0], c[0]], [c[1]]]
    assert [note["got"]["Bob"] for note in late] == [[c[0]], [a[0], c[1]]]
    assert all(note["got"]["Alice"] == [("Bob", f"Bob {n}")] for some in (lost, late) for n, note in enumerate(some))
    assert [note["sent"] for note in lost] == [note["sent"] for note in whole]


@pytest.mark.parametrize(
    ("inject", "seen"),
    [
        (Injection("link", "Alice", "drop", turn=1, to="Bob"), [None, None]),
        (Injection("link", "Alice", "delay", turn=1, to="Bob", lag=1), [None, 10]),
        (Injection("link", "Alice", "equivocate", turn=2, to="Bob", text="44"), ["as sent", 44]),
    ],
)
def test_proposals_on_a_board(inject: Injection, seen: list[Any]) -> None:
    say = []
    for name in ("Alice", "Bob", "Carol"):
        for number in range(2):
            value = {"value": 10 + number, "public_reasoning": f"{name} {number}"}
            say.append(Injection("say", name, turn=2 * number, text=json.dumps(value), end=True))
            vote = json.dumps({"decision": "stop" if number else "continue"})
            say.append(Injection("say", name, turn=2 * number + 1, text=vote, end=True))
    result = run(programs.consensus, *say, inject, ticks=900, **GAME)
    rounds = notes(result, "round")
    assert [note["board"]["Alice"] for note in rounds] == [10, 11]
    told = [note["text"] for note in notes(result, "told") if note["worker"] == "Bob"]
    others = [note["text"] for note in notes(result, "told") if note["worker"] == "Carol"]
    for number, value in enumerate(seen):
        changed = rounds[number].get("changed", {})
        assert changed == ({} if value == "as sent" else {"Bob": {"Alice": value}})
        shown = 10 + number if value == "as sent" else "no proposal" if value is None else value
        assert f"- Alice: {shown}. " in told[2 * number + 1], "it votes on what it sees"
        assert f"- Alice: {10 + number}. Alice {number}" in others[2 * number + 1]


def test_messages_in_a_talk() -> None:
    say = [Injection("say", "Alice", turn=turn, text=f"Instruction: {turn}", end=True) for turn in range(3)]
    say += [Injection("say", "Bob", turn=turn, text=f"Solution: {turn}", end=True) for turn in range(3)]

    def heard(*inject: Injection) -> list[str]:
        result = run(programs.roleplay, *say, *inject, workers=2, ticks=600, messages=6, message_tokens=30)
        return [note["text"] for note in notes(result, "told") if note["worker"] == "Bob"]

    assert heard() == [f"Instruction: {n}" for n in range(3)]
    assert heard(Injection("link", "Alice", "drop", turn=2, to="Bob")) == ["Instruction: 0", *["(no words)"] * 2]
    late = heard(Injection("link", "Alice", "delay", turn=1, to="Bob", lag=1))
    assert late == ["(no words)", "Instruction: 0", "Instruction: 1"]


def test_steps_over_a_cache_are_lost() -> None:
    say = [Injection("say", name, text="one\n\ntwo\n\n" + "z" * 30) for name in ("Alice", "Bob", "Carol")]
    result = run(programs.hogwild, *say, Injection("link", "Alice", "drop", turn=2, to="Bob"), ticks=45, **TEAM)
    events = result.trace.events
    seen = [{name for name in view if name.startswith("Alice.")} for view in views(events, "Bob")]
    assert seen[0] == {"Alice.1"}
    assert set().union(*seen[1:]) <= {"Alice.1"}
    assert any("Alice.3" in view for view in views(events, "Carol")), "others see it"
    held: list[Any] = []

    def control(run: Run) -> None:
        held.append(run)

    run(programs.hogwild, *say, Injection("link", "Alice", "drop", turn=2, to="Bob"), ticks=45, control=control, **TEAM)
    bob, carol = held[0].workers[1].view, held[0].workers[2].view
    texts = [held[0].read(view.ids) for view in (bob, carol)]
    assert "**Alice [1]:** one" in texts[0], "the first step had arrived"
    assert "**Alice [2]:**" not in texts[0]
    assert "**Alice [2]:** two" in texts[1]
    assert "**Bob [2]:** two" in texts[0]


def test_steps_over_a_cache_are_late() -> None:
    say = [Injection("say", name, text="w" * 20 + "\n\n" + "z" * 30) for name in ("Alice", "Bob", "Carol")]
    late = Injection("link", "Alice", "delay", turn=1, to="Bob", lag=7)
    result = run(programs.hogwild, *say, late, ticks=45, **TEAM)
    behind = [view["Alice.1"] for view in views(result.trace.events, "Bob") if "Alice.1" in view]
    assert all(hi == max(0, length - 7) for _, hi, length in behind)
    assert len(behind) > 15, "its view moves on with every tick"
    assert all(
        hi is None
        for view in views(result.trace.events, "Carol")
        for name, (_, hi, _) in view.items()
        if name == "Alice.1"
    )
    history = [
        item
        for event in result.trace.events
        if event["event"] == "view" and event["worker"] == "Bob"
        for item in event["items"]
        if item[0] == "history"
    ]
    assert any(item[2] is not None for item in history), "the end of the finished step waits too"
    assert history[-1][2] is None, "until it has arrived"


@pytest.mark.parametrize("handover", ["cache", "text", "both"])
def test_what_is_handed_on_is_lost(handover: str) -> None:
    say = [Injection("say", name, text=f"{name} says so. ") for name in ("Alice", "Bob")]
    options: dict[str, Any] = {"think": "text", "text_tokens": 16, "handover": handover, "final_tokens": 2}
    lost = Injection("link", "Alice", "drop", to="Carol")
    for inject, arrives in (((), True), ((lost,), False)):
        held: list[Run] = []
        result = run(programs.relay, *say, *inject, control=held.append, **options)
        judge = held[0].read(held[0].workers[2].view.ids)
        assert ("Alice" in {block.name for block in held[0].workers[2].view.blocks}) == (arrives and handover != "text")
        if handover != "both":  # where Bob's block, with what he was told, tells it on
            assert ("Alice says so." in judge) == arrives
        assert "Bob says so." in judge
        assert len(faults(result.trace.events)) == len(inject)
        assert "Alice says so." in held[0].read(held[0].workers[1].view.ids), "Bob got it"


# -- traces ------------------------------------------------------------------------------------------------------------

MANY = (
    Injection("say", "Alice", "echo", at=3, text="one, two, three"),
    Injection("mute", "Bob", "withhold", text="e"),
    Injection("stop", "Carol", "crash", at=12),
    Injection("link", "Alice", "delay", turn=1, to="Bob", lag=4),
)


def test_replay_and_resume(tmp_path: Path) -> None:
    first = run(programs.hogwild, *MANY, trace=tmp_path / "whole.jsonl", **TEAM)
    events = read(tmp_path / "whole.jsonl")
    assert {fault["mode"] for fault in faults(events)} == {"echo", "withhold", "crash", "delay"}
    told = [Injection(**one) for one in start(events)["inject"]]
    assert told == list(MANY)
    again = run(programs.hogwild, *told, replay=events, **TEAM)
    assert again.differences == []
    assert faults(again.trace.events) == faults(events)
    cuts = [at for at, event in enumerate(events) if event["event"] == "tick"][2:40:6]
    for cut in cuts:
        resumed = run(programs.hogwild, *told, replay=events[: cut + 1], **TEAM)
        assert resumed.differences == []
        assert [w.ids for w in resumed.workers] == [w.ids for w in first.workers]
        assert faults(resumed.trace.events) == faults(events), "told once, in the same ticks"


def test_the_command_takes_them_from_the_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kvorum import Engine

    model, trace = tiny_folder(tmp_path / "model"), tmp_path / "run.jsonl"
    loaded = Engine.load(str(model), kv_tokens=8192)
    loaded.run(
        programs.hogwild, "Go.", workers=2, budget=Budget(ticks=30), seed=1, trace=trace, inject=MANY[:2], **TEAM
    )
    assert main(["replay", str(trace), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"]
    events = read(trace)
    start(events)["inject"] = []
    trace.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert main(["replay", str(trace), "--json"]) == 1, "without them the model would have written something else"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("no injection 'shout'", {"kind": "shout", "worker": "Alice"}),
        ("at least 0", {"kind": "say", "worker": "Alice", "at": -1}),
        ("reader in 'to'", {"kind": "link", "worker": "Alice"}),
        ("a mute one a text", {"kind": "mute", "worker": "Alice"}),
        ("speaks of Zoe", {"kind": "stop", "worker": "Zoe"}),
        ("speaks of Zoe", {"kind": "link", "worker": "Alice", "to": "Zoe"}),
    ],
)
def test_what_is_wrong_is_named(words: str, fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=words):
        run(programs.vote, Injection(**fields))


def test_controls_refuse_links() -> None:
    with pytest.raises(BadRequest, match="channel='cache'"):
        run(programs.hogwild, MANY[3], channel="none", **TEAM)


def test_a_task_without_injections_says_nothing_of_them() -> None:
    events = run(programs.vote, **FREE).trace.events
    assert "inject" not in events[0]
    assert not faults(events)
