"""Items of all families: made from seeds alone, verified exactly, with floor and ceiling; private parts reach workers.

Covers: the same seed gives the same item; the script's answer earns 1 and a damaged one exactly what is left of it; the
answers of stories are recomputed by other code; reading of labels; private parts stand in one worker's view only. Not
covered: how well a model does.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum import Budget, Task, programs
from kvorum.cli.parser import make_parser
from kvorum.cli.replay import RecordedRun
from kvorum.errors import BadRequest, UnknownName
from kvorum.store.traces import read
from kvorum.tasks.families import FAMILIES, make
from kvorum.tasks.item import Item
from kvorum.tasks.questions import GYM, STORIES, gym, question
from kvorum.tasks.scoring import assign, joined, split
from scripted_workers import engine, solve

ALL: list[tuple[str, dict[str, Any]]] = [
    ("bundle", {}),
    ("bundle", {"sources": "story,chain_sum,gcd,letter_counting"}),
    ("lists", {}),
    ("facts", {}),
    ("facts", {"ask": "total"}),
    ("facts", {"ask": "largest"}),
    ("chain", {}),
    ("chain", {"split": True, "steps": 7}),
    *(("graph", {"problem": name}) for name in ("coloring", "vertex-cover", "matching", "leader", "consensus")),
    ("agreement", {}),
    ("agreement", {"byzantine": 1}),
    ("everyday", {}),
    ("cover", {}),
    ("enquiry", {"facts": 3}),
    ("moved", {}),
    ("moved", {"places": 3}),
    ("ladder", {}),
    *(("team_ladder", {"kind": name}) for name in ("leader", "colouring", "agreement")),
    ("problems", {"count": 3}),
    ("topics", {}),
]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in ALL]


@pytest.mark.parametrize(("family", "options"), ALL, ids=IDS)
def test_an_item_is_its_seed(family: str, options: dict[str, Any]) -> None:
    for seed in range(6):
        one, other = make(family, seed, **options), make(family, seed, **options)
        assert (one.prompt, one.whole, one.private, one.solution) == (
            other.prompt,
            other.whole,
            other.private,
            other.solution,
        )
    wholes = {make(family, seed, **options).whole or make(family, seed, **options).prompt for seed in range(12)}
    assert len(wholes) > 5


@pytest.mark.parametrize(("family", "options"), ALL, ids=IDS)
def test_floor_and_ceiling(family: str, options: dict[str, Any]) -> None:
    floors = []
    for seed in range(8):
        item = make(family, seed, **options)
        found = item.floor(50)
        floors.append(found)
        assert found["ceiling"] == 1.0
        assert item.score(item.solution).solved
        assert item.score(None).soft == 0.0
        assert item.task().verify(item.solution) == 1.0  # type: ignore[misc]
    blind = {kind: fmean(floor[kind] for floor in floors) for kind in ("random", "constant")}
    assert blind["random"] < 0.95, blind
    assert blind["constant"] < 0.95 or options.get("problem") == "consensus", blind
    if options.get("problem") == "consensus":
        assert blind["constant"] == 1.0, "a constant solves it, without any message"


@given(st.integers(0, 10**6), st.integers(1, 8), st.data())
def test_parts_are_credited_one_by_one(seed: int, parts: int, data: st.DataObject) -> None:
    for item in (make("bundle", seed, parts=parts), make("chain", seed, steps=parts), make("facts", seed, parts)):
        answers = {part.name: part.answer for part in item.parts}
        wrong = data.draw(st.sets(st.sampled_from(sorted(answers))))
        damaged = {name: str(int(answer) + 1) if name in wrong else answer for name, answer in answers.items()}
        score = item.score(joined(damaged))
        assert score.parts == {name: float(name not in wrong) for name in answers}
        assert score.soft == pytest.approx(1 - len(wrong) / len(answers))
        assert score.solved == (not wrong)


@given(st.integers(0, 10**6))
def test_stories_can_be_done(seed: int) -> None:
    """Every answer is a small whole number, and no story gives it away as one of the numbers of its text."""
    draw = random.Random(seed)
    for template in STORIES:
        text, answer = template(draw)
        assert 0 < answer < 120
        assert text.endswith("?")
        assert re.findall(r"\d+", text)


def test_stories_against_other_arithmetic() -> None:
    """The numbers of the text, in their order, by formulas that were written apart from the templates."""
    by: dict[str, Callable[..., float]] = {
        "buys": lambda many, price, left: many * price + left,
        "keeps": lambda all_, kept, friends: (all_ - kept) / friends,
        "more than": lambda first, more: first + (first + more),
        "walks": lambda far, days, rest: sum([far] * (days - rest)),
        "boxes": lambda boxes, each, broken: sum([each] * boxes) - broken,
        "years old": lambda age, times, years: times * age + years,
    }
    draw = random.Random(5)
    for template in STORIES * 30:
        text, answer = template(draw)
        formula = next(rule for mark, rule in by.items() if mark in text)
        assert formula(*map(int, re.findall(r"\d+", text))) == answer


@pytest.mark.parametrize("name", GYM)
def test_questions_of_reasoning_gym(name: str) -> None:
    found = [gym(name, seed) for seed in range(5)]
    assert found == [gym(name, seed) for seed in range(5)]
    assert len({one.text for one in found}) > 2
    assert all(one.answer and ";" not in one.answer and "," not in one.answer for one in found)


def test_lists_count_repeats_and_strangers_against_the_list() -> None:
    item = make("lists", 1)  # multiples
    members = [part.answer for part in item.parts]
    assert item.score(", ".join(members)).solved
    assert item.score(", ".join(members[:6])).soft == 0.5
    assert item.score(", ".join(members * 2)).soft == 0.5
    assert item.score(", ".join([*members, "1000", "1001", "1003", "1007"])).soft == 0.75
    assert item.score("\n".join(members)).solved


def test_topics_count_what_is_known_of_them_once() -> None:
    item = make("topics", 2, wanted=4)  # fruits
    assert "different fruits" in item.prompt
    assert item.score("Apple\nPear\nLime\nFig\n").solved
    assert item.score("1. Apple\n- pear\n* LIME").soft == 0.75
    assert item.score("Apple\nApple\nGrumpfruit\nFig").soft == 0.5
    assert item.score("Apple\nPear\nLime\nFig\nPlum").soft == 0.8


def test_graph_answers_are_scored_again() -> None:
    """What a run says of itself does not count, what its nodes answered does."""
    item = make("graph", 3, problem="leader")
    names = ["Alice", "Bob", "Carol", "Dave"]
    lie = json.dumps({"solved": True, "soft": 1.0, "answers": dict.fromkeys(names, "Yes")})
    assert item.score(lie).soft == 0.0
    right = json.dumps({"solved": False, "answers": dict.fromkeys(names, "No") | {"Bob": "Yes"}})
    assert item.score(right).solved
    assert make("agreement", 0).score('{"outcome": "none", "value": 3}').soft == 0.0


@pytest.mark.parametrize("problem", ["coloring", "vertex-cover", "matching", "leader", "consensus"])
def test_the_item_is_the_program_s_problem(problem: str) -> None:
    """The scripted players of the program earn on the item what the program says they earned."""
    for player in ("flood", "random"):
        for seed in range(3):
            item = make("graph", seed, 8, problem=problem)
            result, _ = solve(
                programs.network, item.task(), workers=8, player=player, seed=seed, **item.given["network"]
            )
            told = json.loads(result.answer or "")
            assert item.score(result.answer).soft == pytest.approx(told["soft"])
            assert item.score(result.answer).solved == told["solved"]
            assert result.score == pytest.approx(told["soft"])
            assert player != "flood" or told["solved"]


def test_the_consensus_item_is_the_program_s_game() -> None:
    item = make("agreement", 4, 5, byzantine=1)
    result, _ = solve(
        programs.consensus, item.task(), workers=5, player="median", liar="high", **item.given["consensus"]
    )
    assert result.score == 1.0
    assert set(json.loads(result.answer or "")["initial"].values()) == {
        int(number) for number in re.findall(r"began with (\d+)", item.whole)
    }


# -- reading answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1; b: 2", {"a": "1", "b": "2"}),
        ("(a) 1, (b) 2", {"a": "1", "b": "2"}),
        ("B = 2; A) 1", {"a": "1", "b": "2"}),
        ("**b**: 7", {"b": "7"}),
        ("1; 2", {"a": "1", "b": "2"}),
        ("1\n2\n3", {"a": "1", "b": "2"}),
        ("a: 1; a: 3", {"a": "3"}),
        ("c: 9", {"a": "c: 9"}),
        ("", {}),
    ],
)
def test_assign(text: str, found: dict[str, str]) -> None:
    assert assign(text, ["a", "b"]) == found


def test_split() -> None:
    assert split("a, b, c") == ["a", "b", "c"]
    assert split("a, b; c") == ["a, b", "c"]


# -- private parts ----------------------------------------------------------------------------------------------------


def seen(run: Any, name: str) -> str:
    worker = next(worker for worker in run.workers if worker.name == name)
    return "".join(run.read(span.block.ids) for span in worker.view.items)


@pytest.mark.parametrize(
    "program", [programs.solo, programs.vote, programs.hogwild, programs.relay], ids=lambda p: p.name
)
def test_a_private_part_is_told_to_its_worker_alone(program: Any) -> None:
    names = ["Alice"] if program.name == "solo" else ["Alice", "Bob", "Carol"]
    task = Task("Add.", private={name: f"key-{name}-yek" for name in names})
    given: dict[str, dict[str, Any]] = {
        "relay": {"form": "hierarchical", "think": "text"},
        "hogwild": {"suppress_markup": False},
    }
    options = given.get(program.name, {})
    words = {name: ["Well."] for name in names}
    result, run = solve(program, task, words, workers=len(names), budget=Budget(ticks=12), final_tokens=2, **options)
    for name in names:
        others = [f"key-{other}-yek" for other in names if other != name]
        assert seen(run, name).count(f"key-{name}-yek") == 1
        if program.name != "relay":  # there the last worker sees the blocks of those before, private parts and all
            assert not any(other in seen(run, name) for other in others)
    start = next(event for event in result.trace.events if event["event"] == "start")
    assert start["task"]["private"] == task.private


def test_a_private_part_is_replayed(tmp_path: Any) -> None:
    file = tmp_path / "run.jsonl"
    task = Task("Add.", private={"Alice": "one", "Bob": "two"})
    options: dict[str, Any] = {"workers": 2, "budget": Budget(ticks=9), "final_tokens": 2, "suppress_markup": False}
    result = engine().run(programs.hogwild, task, trace=file, **options)
    events: Any = read(file)
    words = make_parser().parse_args(["replay", str(file), "--model", "."])
    recorded = RecordedRun(words, events)
    recorded.check()
    again = recorded.run(engine(), lambda event: None, lambda run: None)
    assert again.differences == []
    assert again.ledger.prefill == result.ledger.prefill


def test_no_private_part_gets_lost() -> None:
    with pytest.raises(BadRequest, match="network cannot tell"):
        solve(programs.network, Task("coloring", private={"Alice": "x"}))
    with pytest.raises(BadRequest, match="private part for Zoe"):
        solve(programs.vote, Task("Add.", private={"Zoe": "x"}))


def test_wrong_use_is_named() -> None:
    with pytest.raises(UnknownName, match="bundle"):
        make("bundel", 0)
    with pytest.raises(UnknownName, match="did you mean parts"):
        make("bundle", 0, part=3)
    with pytest.raises(BadRequest, match="is a int"):
        make("bundle", 0, parts="3")
    with pytest.raises(UnknownName, match="story, chain_sum"):
        question("riddles", 0)
    with pytest.raises(UnknownName, match="recall"):
        make("facts", 0, ask="all")
    assert set(FAMILIES) == {name for name, _ in ALL}
    assert isinstance(make("facts", 0, ["Ann", "Ben"]), Item)
