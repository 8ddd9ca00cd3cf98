"""`vote` ends as soon as those who still write cannot change its outcome; ties and open votes go on to their end."""

from __future__ import annotations

import pytest

import toy_engine
from kvorum import Budget, Result, Run, programs
from kvorum.harness.answers import decided
from kvorum.store.events import note_data
from test_hogwild import follow


def vote(*texts: str) -> Result:
    """One scripted worker per text; each ends its text behind it."""
    engine = toy_engine.engine()

    def control(run: Run) -> None:
        for worker, text in zip(run.workers, texts, strict=True):
            follow(worker, text, engine.tokenizer.eos_token_id)

    return engine.run(programs.vote, "Count.", workers=len(texts), budget=Budget(decoded=2000), control=control)


def box(answer: str, thought: int = 0) -> str:
    return "x" * thought + rf"\boxed{{{answer}}}"


@pytest.mark.forward
def test_it_ends_when_the_majority_is_decided() -> None:
    result = vote(box("4"), box("4"), box("4"), box("5", 200))
    notes = {event["kind"]: note_data(event) for event in result.trace.events if event["event"] == "note"}
    assert (result.answer, result.outcome) == ("4", "answered")
    assert notes["settled"] == {"waiting": [result.workers[3].name]}
    assert list(notes["votes"]) == ["answers"]
    assert result.ledger.decoded < 100, "the fourth does not write to its end"


@pytest.mark.forward
@pytest.mark.parametrize("last", ["4", "5"])
def test_it_goes_on_while_one_vote_may_change_it(last: str) -> None:
    result = vote(box("5"), box("4"), box("4"), box(last, 100))
    assert result.answer == last
    assert result.ledger.decoded > 100


def test_decided() -> None:
    assert decided(["1", "1"], 1)
    assert decided(["1", " 1.0 ", "2"], 0)
    assert not decided(["1", "1"], 2), "a tie would be another outcome"
    assert not decided(["1", "2"], 0)
    assert not decided([], 0)
