"""Coordination as counted: scripted teams whose behaviour is known return the planted values.

The teams are hogwild runs on a tiny model whose workers may only pick the letters of their scripts: one splits a bundle
perfectly, one duplicates everything, one ignores the others, one reuses a private fact and one reacts to an injected
sentence after a known time. Not covered: values that models spell otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from kvorum import Budget, Command, Row, Run, Worker, programs
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.answers import asks_for_answer
from kvorum.lab.measure import announced_plans
from kvorum.lab.measure.coordination import division, measure, mentions, overlap, redundancy, reuse
from kvorum.lab.measure.injected_fact import InjectedFact
from kvorum.lab.measure.worker_text import WorkerText, worker_texts
from kvorum.tasks.families import make
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import AnswerPart
from scripted_workers import VOCAB, fake

NAMES = ["Alice", "Bob", "Carol", "Dave"]
PARTS = tuple(AnswerPart(letter, str(number)) for letter, number in zip("abcd", (111, 222, 333, 444), strict=True))


def planned(texts: list[str]) -> dict[str, float | None]:
    lines = worker_texts(team(texts, ticks=max(map(len, texts)) + 4).trace.events)
    return announced_plans.measure(lines, PARTS, mentions(lines, PARTS))


def test_a_plan_that_everyone_follows() -> None:
    alice = "I take a and b, you take c and d. So a is 111 and b is 222. "
    bob = "Yes, good, I do what you say and wait: c is 333 and d is 444. "
    assert planned([alice, bob]) == {"plans": 4, "plan_kept": 1.0, "plan_followed": 1.0, "plan_respected": 1.0}


def test_a_plan_that_one_follows_and_one_ignores() -> None:
    """Bob does a himself, c as he was told, and d never: of four two are kept, of his two one; a is not his."""
    alice = "I take a and b, Bob will take c and d. Then b is 222. "
    bob = "Hello to you, I am here and write that a is 111, and c is 333. "
    assert planned([alice, bob]) == {"plans": 4, "plan_kept": 0.5, "plan_followed": 0.5, "plan_respected": 0.75}


def test_nobody_plans_and_plans_that_come_too_late() -> None:
    none: dict[str, float | None] = {"plan_kept": None, "plan_followed": None, "plan_respected": None}
    assert planned(["a is 111 and b is 222. ", "c is 333 and d is 444. "]) == {"plans": 0, **none}
    assert planned(["111 it is. I take a. ", "x" * 20]) == {"plans": 0, **none}, "it was done already"
    assert measure(team(["I take 1, you take 2. "]).trace.events, make("lists", 0, 2))["plans"] is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I take 1 and 2, you take 3.", "Alice a, Alice b, Bob c"),
        ("Let me do question a.", "Alice a"),
        ("I will do a quick check.", ""),
        ("I will do a, b and c. ", "Alice a, Alice b, Alice c"),
        ("Alice: a and b, Bob: c", "Alice a, Alice b, Bob c"),
        ("1. Alice: 1, 2\n2. Bob: 3, 4", "Alice a, Alice b, Bob c, Bob d"),
        ("a) Alice\nb) Bob\n", "Alice a, Bob b"),
        ("a) Alice buys 5 apples.", ""),
        ("Alice should do A and B, and Bob C.", "Alice a, Alice b"),
        ("I'll start with the first question and Bob will handle the second one.", "Alice a, Bob b"),
        ("the first two questions: I will take the first two questions", ""),
        ("Bob, please solve part (c).", "Bob c"),
        ("Bob is working on question 3, I am solving b now", "Bob c, Alice b"),
        ("I'll do questions 1 to 3", "Alice a, Alice b, Alice c"),
        ("I won't do a. Alice did b. Bob does not do c. I do not take d.", ""),
        ("I will compute 3 times 4, find 2 questions, do 2.5 of it and answer question 12.", ""),
        ("Carol will solve d.", ""),
    ],
)
def test_what_is_a_plan(text: str, found: str) -> None:
    lines = [WorkerText("Alice"), WorkerText("Bob")]
    for at, mark in enumerate(text):
        lines[0].add(at, mark)
    said = announced_plans.announced(lines, PARTS)
    assert {(one.worker, one.part) for one in said} == {tuple(one.split()) for one in found.split(", ") if one}
    assert all(one.speaker == "Alice" for one in said)
    three = [WorkerText("Alice"), WorkerText("Bob"), WorkerText("Carol")]
    for at, mark in enumerate("You take a. Carol, you take b."):
        three[0].add(at, mark)
    assert [(one.worker, one.part, one.tick) for one in announced_plans.announced(three, PARTS)] == [("Carol", "b", 28)]


def scripted(texts: list[str]) -> Callable[[Run], None]:
    def control(run: Run) -> None:
        for worker, text in zip(run.workers, texts, strict=True):

            def allow(logits: Tensor, worker: Any = worker, text: str = text) -> Tensor:
                at = len(worker.ids)
                return torch.arange(VOCAB) == ord(text[at] if at < len(text) else "-")

            worker.allow = allow

    return control


def team(texts: list[str], ticks: int = 60, say: tuple[int, Command] | None = None) -> Any:
    def control(run: Run) -> None:
        scripted(texts)(run)
        if say is not None:
            tick = run.tick

            async def then(workers: Sequence[Worker], also: Sequence[Row] = ()) -> None:
                await tick(workers, also)
                if len([event for event in run.trace.events if event["event"] == "tick"]) == say[0]:
                    run.commands.append(say[1])

            run.tick = then  # type: ignore[method-assign]

    return fake().run(
        programs.hogwild,
        "Go.",
        workers=NAMES[: len(texts)],
        budget=Budget(decoded=ticks * len(texts)),
        control=control,
        openings=False,
        suppress_markup=False,
        final_tokens=2,
    )


def test_a_team_that_splits_perfectly() -> None:
    events = team([f"It is {part.answer}. " for part in PARTS]).trace.events
    found = mentions(worker_texts(events), PARTS)
    assert {name: list(who) for name, who in found.items()} == {p.name: [n] for p, n in zip(PARTS, NAMES, strict=True)}
    assert redundancy(found) == 0.0
    assert division(found, 4) == pytest.approx(1.0)
    assert reuse(found, PARTS, 4) == (0.0, None)


def test_a_team_that_duplicates_everything() -> None:
    text = "We have 111 and 222 and then 333 and 444 as all of the numbers. "
    lines = worker_texts(team([text] * 4, ticks=70).trace.events)
    found = mentions(lines, PARTS)
    assert redundancy(found) == pytest.approx(3 / 4)
    assert overlap(lines) == pytest.approx(3 / 4)
    assert division(found, 4) == 0.0
    assert reuse(found, PARTS, 4) == (0.0, None), "in the same tick nobody reuses anything"


def test_a_team_in_which_one_does_everything() -> None:
    found = mentions(worker_texts(team(["111, 222, 333, 444", *["x " * 20] * 3]).trace.events), PARTS)
    assert redundancy(found) == 0.0
    assert division(found, 4) == 0.0, "no repeats, and no division either"


def test_workers_that_ignore_each_other_and_one_that_does_not() -> None:
    """Bob holds 222. Alice writes it 20 ticks after him; Carol and Dave never do."""
    held = (AnswerPart("Bob", "222", "Bob"),)
    bob, alice = "so it is 222. ", "x" * 17 + " therefore, also 222 "
    found = mentions(worker_texts(team([alice, bob, "y " * 20, "z " * 20]).trace.events), held)
    assert found == {"Bob": {"Alice": alice.index("222") + 2, "Bob": bob.index("222") + 2}}
    share, lag = reuse(found, held, 4)
    assert share == pytest.approx(1 / 3)
    assert lag == alice.index("222") - bob.index("222")
    nobody = mentions(worker_texts(team(["x " * 20, bob, "y " * 20, "z " * 20]).trace.events), held)
    assert reuse(nobody, held, 4) == (0.0, None)
    guess = mentions(worker_texts(team([alice, "x " * 20, "y " * 20, "z " * 20]).trace.events), held)
    assert reuse(guess, held, 4) == (None, None), "what its holder never wrote cannot have been reused"


def test_reaction_to_an_injected_sentence() -> None:
    """Told to Alice before tick 10; Bob writes it 15 ticks later, Carol had written it before, Dave never does."""
    said = Command("say", "Alice", " Note: zebra. ")
    bob = "." * 20 + " zebra "
    events = team(["x " * 20, bob, "zebra ", "y " * 20], say=(10, said)).trace.events
    zebra = InjectedFact("Alice", 10, said.text, "zebra").measure(events)
    assert zebra["reactions"] == {"Bob": bob.index("zebra") + 4 - 10, "Dave": None}, "Carol did not react"
    assert InjectedFact("Alice", 10, said.text, "giraffe").measure(events)["reactions"] == {}
    given = next(lane for lane in worker_texts(events) if lane.name == "Alice")
    assert "zebra" not in given.text, "given words are not the worker's"


def told(texts: list[str], injection: InjectedFact) -> Any:
    """The events of a scripted team with an injection."""
    held: list[Run] = []
    allowed = scripted(texts)

    def control(run: Run) -> None:
        held.append(run)
        allowed(run)

    return (
        fake()
        .run(
            programs.hogwild,
            "Go.",
            workers=NAMES[: len(texts)],
            budget=Budget(decoded=60 * len(texts)),
            control=control,
            openings=False,
            suppress_markup=False,
            final_tokens=2,
            listener=lambda event: injection.listen(event, held[0]),
        )
        .trace.events
    )


def test_an_injected_fact_and_who_takes_it_up() -> None:
    """Alice is told after 10 ticks. Bob writes it then, Carol had written it before, Dave never does."""
    injection = InjectedFact("Alice", 10, " Note: 777.", "777")
    bob = "." * 30 + " 777 "
    events = told(["x " * 20, bob, "777 ", "y " * 20], injection)
    assert injection.measure(events) == {
        "injected": "Note: 777.",
        "told_tick": 10,
        "reacted": 0.5,
        "reaction_ticks": bob.index("777") + 2 - 10,
        "reactions": {"Bob": bob.index("777") + 2 - 10, "Dave": None},
    }
    deaf = injection.measure(told(["x " * 20, "z " * 20, "", "y " * 20], injection))
    assert (deaf["told_tick"], deaf["reacted"], deaf["reaction_ticks"]) == (10, 0.0, None)
    alone = injection.measure(told(["x " * 20], injection))
    assert (alone["told_tick"], alone["reacted"]) == (10, None)
    left = injection.measure(told(["x" + chr(3), bob], injection))
    assert (left["told_tick"], left["reacted"]) == (None, None), "Alice had left: nobody was told"
    late = InjectedFact("Alice", 500, " Note: 777.", "777")
    assert late.measure(told(["x " * 20, bob], late))["told_tick"] is None


def test_which_fact_is_injected() -> None:
    facts = make("facts", 4, 3)
    for name in NAMES[:3]:
        held = InjectedFact.of({"worker": name, "tick": 3}, facts, NAMES[:3])
        assert held.value in facts.private[name]
        assert facts.private[name] in held.text
    assert InjectedFact.of(True, facts, NAMES[:3]) == InjectedFact.of({"worker": "Alice", "tick": 8}, facts, NAMES[:3])
    bundle = make("bundle", 4, 3)
    assert InjectedFact.of(True, bundle, NAMES[:3]).value in {part.answer for part in bundle.parts}
    own = InjectedFact.of({"text": "The code is 5.", "value": "5"}, make("graph", 0, 4), NAMES)
    assert (own.text, own.value) == ("The code is 5.", "5")


@pytest.mark.parametrize(
    ("error", "words", "inject"),
    [
        (BadRequest, "true or a mapping", 3),
        (UnknownName, "no key 'who'", {"who": "Alice"}),
        (BadRequest, "at least 1, not 0", {"tick": 0}),
        (UnknownName, "'Zed'; the workers are: Alice, Bob", {"worker": "Zed"}),
        (BadRequest, "needs inject.value", {"text": "Stop."}),
        (BadRequest, "needs inject.value", {"text": "Stop.", "value": "go"}),
        (BadRequest, "no fact to inject", True),
    ],
)
def test_what_is_wrong_with_an_injection_is_named(error: type[Exception], words: str, inject: Any) -> None:
    with pytest.raises(error, match=words):
        InjectedFact.of(inject, make("graph", 0, 2), NAMES[:2])


def test_forced_answers_and_numbers_of_the_text_are_not_work() -> None:
    item = make("bundle", 3, 2)
    result: Any = fake().run(
        programs.hogwild,
        item.task(),
        workers=2,
        budget=Budget(decoded=20),
        openings=False,
        suppress_markup=False,
        final_tokens=30,
    )
    ticks = [event for event in result.trace.events if event["event"] == "tick"]
    forced = next(e["n"] for e in ticks if any(asks_for_answer(row.get("given", "")) for row in e["rows"]))
    assert forced < ticks[-1]["n"]
    own = [one.ticks[-1] for one in worker_texts(result.trace.events)]
    assert max(own) == forced - 1
    planted = Item("x", 0, "Use 111.", item.score, "", item.guess, "", PARTS[:2])
    events = team(["111", "222"]).trace.events
    assert measure(events, planted)["written"] == 1.0, "111 stands in the text and does not count; 222 was written"
    assert measure(events, planted)["redundancy"] == 0.0


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        ("the 12 of 123", "12", True),
        ("123", "12", False),
        ("1.12", "12", False),
        ("12.5", "12", False),
        ("It is 12.", "12", True),
        ("may March", "march", True),
        ("$12$", "12", True),
    ],
)
def test_values_are_words_of_their_own(text: str, words: str, found: bool) -> None:
    lane = WorkerText("Alice")
    for at, mark in enumerate(text):
        lane.add(at, mark)
    assert (lane.first(words) is not None) == found
