"""Protocols: messages held to their schema while they are written, votes, deadlines, and the machine of steps.

Votes are compared with counting by hand over every way to complete them. A model's words are those of a backend without
a model, whose tokens a grammar alone decides.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy_engine
from kvorum import Budget, Run, Sampling, programs
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.model_speaker import ModelSpeaker
from kvorum.harness.protocols.messages import Message, field_quote
from kvorum.harness.protocols.protocol import Played, Protocol
from kvorum.harness.protocols.votes import RULES, Ballot, needed
from kvorum.harness.speaker import Malformed, Turn, TurnReply, ask
from kvorum.runs.injection import Injection
from kvorum.runs.program import program
from scripted_workers import together

VOTERS, CHOICES = "abcde", ("yes", "no", "later")
CASTS = st.lists(
    st.tuples(st.sampled_from([*VOTERS, "stranger"]), st.sampled_from([*CHOICES, "maybe"]), st.integers(0, 9)),
    max_size=12,
)


def ballot(rule: str, casts: list[tuple[str, str, int]], **options: Any) -> Ballot:
    made = Ballot(VOTERS, CHOICES, rule, **options)
    for cast in casts:
        made.cast(*cast)
    return made


@given(st.sampled_from(RULES), CASTS, st.integers(0, 5))
def test_votes_are_counted_as_by_hand(rule: str, casts: list[tuple[str, str, int]], least: int) -> None:
    first: dict[str, str] = {}
    for voter, choice, at in casts:
        if voter in VOTERS and choice in CHOICES and at <= 6:
            first.setdefault(voter, choice)
    found = ballot(rule, casts, least=least, closes=6).count()
    votes = Counter(first.values())
    assert found.votes == {choice: votes[choice] for choice in CHOICES}
    assert list(found.absent) == [voter for voter in VOTERS if voter not in first]
    bar = {"majority": 3, "two thirds": 4, "all": 5, "most": 1}[rule]
    over = [choice for choice in CHOICES if votes[choice] >= bar]
    best = [choice for choice in over if votes[choice] == max(votes.values())]
    if len(first) < max(1, least):
        assert (found.outcome, found.winner) == ("absent", "")
    elif not over:
        assert (found.outcome, found.winner) == ("short", "")
    elif len(best) == 1:
        assert (found.outcome, found.winner) == ("won", best[0])
    else:
        assert (found.outcome, found.winner, rule) == ("tied", "", "most")


@given(st.sampled_from(RULES), st.dictionaries(st.sampled_from(VOTERS), st.sampled_from(CHOICES)), st.randoms())
def test_the_order_of_voters_changes_nothing(rule: str, votes: dict[str, str], draw: Any) -> None:
    casts = [(voter, choice, 0) for voter, choice in votes.items()]
    mixed = list(casts)
    draw.shuffle(mixed)
    assert ballot(rule, casts).count() == ballot(rule, mixed).count()


@given(st.sampled_from(RULES), st.dictionaries(st.sampled_from(VOTERS), st.sampled_from(CHOICES)))
def test_it_is_settled_when_no_votes_to_come_change_it(rule: str, votes: dict[str, str]) -> None:
    casts = [(voter, choice, 0) for voter, choice in votes.items()]
    waiting = [voter for voter in VOTERS if voter not in votes]
    outcomes = set()
    for more in itertools.product([None, *CHOICES], repeat=len(waiting)):
        rest = [(voter, choice, 0) for voter, choice in zip(waiting, more, strict=True) if choice]
        count = ballot(rule, casts + rest).count()
        outcomes.add((count.outcome if count.outcome != "absent" else "short", count.winner))
    if ballot(rule, casts).settled:
        assert len(outcomes) == 1
    elif votes:  # without any vote the outcome is "absent", whatever the rule
        assert len(outcomes) > 1


def test_what_becomes_of_a_vote() -> None:
    made = Ballot(["a", "b"], ["x", "y"], closes=3)
    casts = [("a", "x", 3), ("a", "y", 3), ("a", "x", 3), ("b", "x", 4), ("c", "x", 0), ("b", "z", 0)]
    assert [made.cast(*cast) for cast in casts] == ["counted", "double", "double", "late", "stranger", "no choice"]
    assert made.cast_by == {"a": "x"}
    assert [needed(rule, 4) for rule in RULES] == [3, 3, 4, 1]
    with pytest.raises(UnknownName, match="majority"):
        needed("majorty", 3)
    for wrong in (([], ["x"]), (["a", "a"], ["x"]), (["a"], [])):
        with pytest.raises(BadRequest, match="each once"):
            Ballot(*wrong)
    with pytest.raises(BadRequest, match="least=3"):
        Ballot(["a"], ["x"], least=3)


class Verdict(pydantic.BaseModel):
    decision: str
    score: int = 0


def test_messages_are_read_and_refused() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"decision": {"enum": ["accept", "reject"]}},
        "required": ["decision"],
    }
    kind = Message.of("verdict", schema)
    said = TurnReply('Well: {"decision": "accept"} or {"decision": "perhaps"}', speaker="Ann")
    fields = kind.read(said)
    assert field_quote(said, fields["decision"]).text == "accept"
    for text, why in (
        ("no", "No JSON object"),
        ('{"decision": "perhaps"}', "decision: 'perhaps' is not one of"),
        ('{"decision": "accept", "more": 1}', "Additional properties"),
        ("{}", "'decision' is a required property"),
    ):
        with pytest.raises(Malformed, match=why):
            kind.read(TurnReply(text))
    made = Message.of("verdict", Verdict)
    assert made.read(TurnReply('{"decision": "x", "score": 3}'))["score"].value == 3
    with pytest.raises(BadRequest, match="named fields"):
        Message.of("x", {"type": "string"})
    with pytest.raises(BadRequest, match="propertis"):
        Message.of("x", {"type": "object", "propertis": {}})


DECISION = Message.of(
    "verdict",
    {
        "type": "object",
        "properties": {"decision": {"enum": ["accept", "reject"]}, "reason": {"type": "string", "maxLength": 60}},
        "required": ["decision", "reason"],
    },
)


@program("speaks", "says one typed message", workers=2)
async def speaks(run: Run, *, deadline: int = 0, tokens: int = 200, retries: int = 0) -> str:
    speaker = ModelSpeaker(run, "cache")
    turns = {one.name: Turn(["Well?"], "Judge.", tokens, grammar=DECISION.grammar) for one in run.workers}
    found, failed = await ask(speaker, turns, DECISION.read, again="Again.", retries=retries, deadline=deadline or None)
    after = await speaker({name: Turn(["Why?"], None, 4) for name in turns})
    assert {reply.end for reply in after.values()} <= {"cut", "ended"}
    return json.dumps({"found": {name: fields["decision"].value for name, fields in found.items()}, "failed": failed})


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_model_would_write_the_message_fits(seed: int) -> None:
    result = toy_engine.fake().run(speaks, "x", seed=seed, sampling=Sampling(temperature=1.5), budget=Budget(ticks=200))
    assert result.answer is not None
    found = json.loads(result.answer)
    assert set(found["found"].values()) <= {"accept", "reject"}
    assert found["found"].keys() == {"Alice", "Bob"}
    texts = {worker.name: worker.text for worker in result.workers}
    assert all(text.startswith('{"decision": "') for text in texts.values())


def test_who_does_not_end_in_time_is_late_and_no_one_else() -> None:
    quick = '{"decision": "accept", "reason": ""}'
    inject = [Injection("say", "Alice", text=quick, end=True)]
    slow = [
        Injection(
            "say",
            "Bob",
            text='{"decision": "reject", "reason": "zqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzq"}',
            end=True,
        )
    ]
    result = toy_engine.fake().run(speaks, "x", inject=[*inject, *slow], deadline=30, budget=Budget(ticks=300))
    assert result.answer is not None
    assert json.loads(result.answer) == {"found": {"Alice": "accept"}, "failed": {"Bob": "late"}}


def test_a_deadline_is_shared_by_all_tries() -> None:
    heard: list[int | None] = []

    async def speak(turns: Any) -> dict[str, TurnReply]:
        heard.append(turns["a"].ticks)
        return {"a": TurnReply("?", "ended", "a", ticks=4)}

    def read(said: TurnReply) -> str:
        raise Malformed("no")

    run = ask(speak, {"a": Turn([""])}, read, again="", retries=9, deadline=10)
    assert together([run]) == [({}, {"a": "late"})]
    assert heard == [10, 6, 2]


def test_steps_lead_where_they_are_said_to() -> None:
    talk = Protocol({"draft": {"done": "check"}, "check": {"bad": "draft"}}, "draft", most=7)
    verdicts = iter(["bad", "bad", "good"])

    async def draft() -> str:
        return "done"

    async def check() -> str:
        return next(verdicts)

    (played,) = together([talk.play({"draft": draft, "check": check})])
    assert played.end == "good"
    assert [step for step, _ in played.steps] == ["draft", "check"] * 3
    short = Protocol(talk.steps, "draft", most=3)
    verdicts = iter(["bad"])
    assert together([short.play({"draft": draft, "check": check})]) == [
        Played("cap", [("draft", "done"), ("check", "bad"), ("draft", "done")])
    ]


@pytest.mark.parametrize(
    ("steps", "start", "most", "words"),
    [
        ({"a": {}}, "b", 1, "no step 'b'"),
        ({"a": {"x": "bb"}, "ab": {}}, "a", 1, "leads to 'bb'"),
        ({"a": {}, "b": {}}, "a", 1, "The step b is never come to"),
        ({"a": {}}, "a", 0, "at least 1 step"),
    ],
)
def test_protocols_that_cannot_be(steps: Any, start: str, most: int, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Protocol(steps, start, most)


def test_a_grammar_that_cannot_be_followed_fails_its_worker_alone() -> None:
    """What is put into Bob's mouth is not in the grammar; Alice goes on, and Bob speaks again later."""
    inject = [Injection("say", "Bob", text="no", end=True)]
    result = toy_engine.fake().run(speaks, "x", inject=inject, budget=Budget(ticks=300))
    assert result.answer is not None
    found = json.loads(result.answer)
    assert found["found"].keys() == {"Alice"}
    assert found["failed"] == {"Bob": "No JSON object could be read."}


def test_it_is_replayed() -> None:
    first = toy_engine.fake().run(speaks, "x", sampling=Sampling(temperature=1.0), budget=Budget(ticks=200))
    again = toy_engine.fake().run(
        speaks, "x", sampling=Sampling(temperature=1.0), budget=Budget(ticks=200), replay=first.trace.events
    )
    assert not again.differences
    assert again.answer == first.answer
    assert programs.roleplay.turns
