"""Everyday tasks: each kind's right answer passes its checker for many seeds, and wrong ones do not.

Not here: what models make of them (docs/evidence/everyday.md).
"""

from __future__ import annotations

import json

import jsonschema
import pytest

from kvorum.tasks.everyday.family import KINDS, everyday, job
from kvorum.tasks.everyday.kind import answers_of, json_of, says


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_answer_of_every_kind_earns_all_and_others_nothing(kind: str) -> None:
    for seed in range(60):
        made = job(kind, seed)
        assert made.check(made.solution) == 1, (seed, made.prompt, made.solution)
        assert job(kind, seed).prompt == made.prompt
        assert made.check("") == 0
        assert made.check("I am sorry, but I cannot help with this.") == 0
        assert made.check(made.prompt) < 1, "an answer that repeats the task is not right"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_program_is_told_has_the_same_right_answer(kind: str) -> None:
    made = job(kind, 3)
    if made.schema:
        jsonschema.validate(json.loads(made.solution), dict(made.schema))
        assert made.text
    if made.questions:
        assert len(answers_of(made.solution, len(made.questions))) == len(made.questions)
    for asked, options in made.choices:
        assert asked
        assert len(set(options)) == len(options) > 1
    if made.choices:
        right = answers_of(made.solution, len(made.choices))
        assert all(answer in options for answer, (_, options) in zip(right, made.choices, strict=True))


def test_seeds_go_through_all_kinds() -> None:
    assert len(KINDS) >= 24
    items = [everyday(seed, ()) for seed in range(len(KINDS))]
    assert len({item.prompt for item in items}) == len(KINDS)
    assert all(item.score(item.solution).solved and not item.score(None).solved for item in items)
    some = [everyday(seed, (), kind="sums, dates").prompt for seed in (4, 5)]
    assert some == [everyday(4, (), kind="sums").prompt, everyday(5, (), kind="dates").prompt]


def test_a_model_s_own_way_of_writing_answers_is_read() -> None:
    assert answers_of("1) yes\n2. no\n**3)** yes", 3) == ["yes", "no", "yes"]
    assert answers_of("yes\n\nno", 3) == ["yes", "no", ""]
    assert says("It cost 1,234 euros.", "1234")
    assert not says("It cost 12345 euros.", "1234")
    assert not says("3.5", "3")
    assert json_of('Here it is:\n```json\n{"a": 1}\n```') == {"a": 1}
    assert json_of("no JSON") is None


def test_a_query_cannot_write_nor_run_for_ever() -> None:
    made = next(job("query", seed) for seed in range(50))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    for text in ("DELETE FROM people", "ATTACH 'x.db' AS x", endless, "SELECT 1; SELECT 2"):
        assert made.check(text) == 0
