"""When an answer begins that one worker writes: its first word and its first right sentence, of runs whose words are
known beforehand.

The runs are those of async_reasoning without a model, whose workers may only pick the letters of their scripts; the
problem is any with a checker. Covers: ticks that encode counted along, a wrong sentence before the right one, points
inside numbers, an answer that is whole only at its end or never right, arms that name no speaker, what a report says of
it beside another arm, and that a repeated word problem is no answer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from kvorum import Budget, Run, Worker, programs
from kvorum.lab.measure.first_words import first_words
from kvorum.lab.statistics.beginnings import beginnings
from kvorum.store.events import Event
from kvorum.tasks.everyday.kind import each
from kvorum.tasks.families import make
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import Score
from scripted_workers import END, VOCAB, fake


def score(answer: str | None) -> Score:
    right = each(["4.5", "seven"])(answer or "")
    return Score(right, right == 1)


ITEM = Item("two", 0, "What is 9/2? Spell 7.", score, "1) 4.5\n2) seven", lambda draw: "yes", "yes")


def written(answer: str, thoughts: str = "Hm. ") -> Sequence[Event]:
    """The events of a run in which the thinker writes the thoughts, and then the writer the answer."""

    def control(run: Run) -> None:
        def allow(worker: Worker, text: str) -> None:
            def only(logits: Tensor) -> Tensor:
                at = len(worker.ids)
                return torch.arange(VOCAB) == (ord(text[at]) if at < len(text) else END)

            worker.allow = only

        for worker, text in zip(run.workers, (thoughts, answer), strict=True):
            allow(worker, text)

    options: dict[str, Any] = {"order": "then", "think": len(thoughts), "budget": Budget(ticks=200)}
    result = fake().run(programs.async_reasoning, ITEM.task(), control=control, **options)
    assert result.answer == answer.strip()
    return result.trace.events


def encoded(events: Sequence[Event]) -> int:
    """How many ticks encode what stands before the first word of anybody."""
    return [event["event"] for event in events if event["event"] in ("tick", "forward")].index("tick")


@pytest.mark.parametrize(
    ("answer", "word", "right"),
    [
        ("1) 4.5 it is.\n2) seven", 1, 13),
        ("  I say. 1) 4. No:\n1) 4.5\n", 3, 26),
        ("2) seven", 1, 8),
        ("1) 4.\n2) six.\n", 1, None),
    ],
)
def test_the_tick_of_the_first_right_sentence(answer: str, word: int, right: int | None) -> None:
    events = written(answer)
    before = encoded(events) + len("Hm. ")
    assert before > 5, "what encodes is counted along"
    found = first_words(events, ITEM, programs.async_reasoning.speaker)
    assert found == {"first_word": before + word, "first_right": None if right is None else before + right}


def test_nobody_speaks_for_all() -> None:
    assert first_words(written("1) 4.5"), ITEM, None) == {"first_word": None, "first_right": None}


def test_what_repeats_its_problems_answers_none() -> None:
    for seed in range(20):
        item = make("problems", seed)
        told = item.prompt.partition("\n")[2]
        assert item.score(told).soft == 0
        lines = [
            f"{line} So it is {right.partition(' ')[2]}."
            for line, right in zip(told.splitlines(), item.solution.splitlines(), strict=True)
        ]
        assert item.score("\n".join(lines)).solved


def record(arm: str, item: int, ticks: int, word: float | None, right: float | None) -> dict[str, Any]:
    where = {"model": "toy", "task": "two", "team": 2, "budget": 9, "seed": 0}
    return {
        **where,
        "program": arm.partition("/")[0],
        "arm": arm,
        "item": item,
        "ticks": ticks,
        "first_word": word,
        "first_right": right,
    }


def test_a_report_says_when_an_answer_begins_as_a_share_of_another_arm() -> None:
    one, other = "async_reasoning/cache", "async_reasoning/then"
    table = pd.DataFrame(
        [
            record(one, 0, 30, 5, 10),
            record(one, 1, 30, 10, 30),
            record(one, 2, 30, 10, None),
            record(one, 3, 30, 1, 1),
            record(other, 0, 100, 60, 70),
            record(other, 1, 100, 60, 70),
            record(other, 2, 200, None, None),
            record("vote/x", 0, 100, None, None),
        ]
    )
    (found,) = beginnings(table)
    assert (found.one, found.other) == (one, other)
    assert found.word is not None
    assert found.word.value == pytest.approx((0.05 + 0.1 + 0.05) / 3)
    assert found.right is not None
    assert found.right.value == pytest.approx(0.2)
    assert found.soon.value == pytest.approx(1 / 3)
    assert (found.right.n, found.soon.n) == (2, 3)
    none = table.assign(first_right=None).astype({"first_right": float})
    assert beginnings(none)[0].right is None
    assert beginnings(none)[0].soon.value == 0
    assert beginnings(table.drop(columns=["first_word"])) == []
