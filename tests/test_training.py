"""Training over shared views: arrangements with blanks, what oracles teach, pieces that go on, a model that loads.

Covers: a filling has the arrangement of a run with those words; targets are the oracles'; two pieces make the weights
of one; the finished folder runs in the engine; that the loss falls (slow). Not covered: how good a model becomes, and
the forward itself (test_team_forward.py).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kvorum import Budget, Engine, programs
from kvorum.errors import BadRequest
from kvorum.lab.training.lessons import PARAMS, WANTED, Lessons, words
from kvorum.lab.training.template import record
from kvorum.lab.training.train import Recipe, Training
from kvorum.programs import find
from kvorum.runs.program import Task
from kvorum.tasks.cover import WORDS, cover
from kvorum.tasks.families import make

TINY = Recipe(steps=6, tokens=300, layers=1, width=32, heads=2, feed=32)


def lessons(seed: int = 0) -> Lessons:
    return Lessons(torch.Generator().manual_seed(seed))


def test_a_filling_is_the_trace_of_a_run_with_those_words() -> None:
    told, others = WORDS[:3], WORDS[3:6]
    first, second = [WORDS[10:13], WORDS[13:16]], [WORDS[20:23], WORDS[23:26]]
    tokenizer, hogwild = words(), find("hogwild")
    one = asyncio.run(record(hogwild, tokenizer, Task(f"Name {' '.join(told)}"), told, first, **PARAMS))
    two = asyncio.run(record(hogwild, tokenizer, Task(f"Name {' '.join(others)}"), others, second, **PARAMS))
    assert np.array_equal(one.trace.distance, two.trace.distance)
    blanks = tokenizer(" ".join(["", *others, *second[0], *second[1]]))["input_ids"]
    ids, targets = one.fill(torch.tensor([blanks]))
    assert ids[0].tolist() == two.trace.ids
    assert [str(tokenizer.decode(line)).split() for line in targets[0].tolist()] == second
    with pytest.raises(BadRequest, match="a word of its own"):
        asyncio.run(record(hogwild, tokenizer, Task("Name apple"), ["apple"], [["apple", "river"]], **PARAMS))
    with pytest.raises(BadRequest, match="does not stand"):
        asyncio.run(record(hogwild, tokenizer, Task("Name"), ["apple"], [["stone", "river"]], **PARAMS))


@pytest.mark.parametrize("shared", [True, False])
def test_the_oracle_of_cover_draws_from_what_it_has_not_seen(shared: bool) -> None:
    found = asyncio.run(lessons().cover(5, 4, shared))
    wanted = found.template.drawn[:, 1:]  # a word is fed where the next one is drawn
    written = found.ids[:, wanted]  # [teams, workers, ticks - 1]
    for team in range(5):
        for worker in range(4):
            for tick in range(WANTED // 4):
                seen = written[team, :, :tick] if shared else written[team, worker, :tick]
                named = torch.isin(found.choices[team], seen.flatten())
                target = found.target[team, worker, tick]
                assert torch.equal(target > 0, ~named)
                assert target.sum() == pytest.approx(1)


def test_the_oracle_of_enquiry_answers_with_what_a_colleague_was_told() -> None:
    made = lessons()
    found = asyncio.run(made.enquiry(4, 4))
    for team in range(4):
        text = str(made.tokenizer.decode(found.ids[team], skip_special_tokens=False))
        told = [line.splitlines()[0].split("<")[0].split() for line in text.split("\nknow ")[1:]]
        facts = {key: number for line in told for key, number in zip(line[:4:2], line[1:4:2], strict=True)}
        right = found.choices[team][found.target[team].argmax(-1)]  # [workers, ticks]
        for own, said in zip(told, right.tolist(), strict=True):
            want, key, number, again, answer = str(made.tokenizer.decode(said)).split()
            assert want == again == own[-1]
            assert want not in own[:-2]
            assert answer == facts[want]
            assert key in own[:4:2]
            assert number == facts[key]


def test_items_are_of_the_words_that_are_learnt() -> None:
    known = words()
    for item in [cover(3, ()), *(make("enquiry", seed, 8) for seed in range(5))]:
        for text in (item.prompt, *(f"\n{told}" for told in item.private.values())):
            assert known.unk_token_id not in known(text)["input_ids"]
    item = make("enquiry", 0, 4)
    assert item.score(f"a b c {item.solution}").solved
    assert not item.score(f"{item.solution} zipper").solved
    assert {part.holder for part in item.parts} == set(item.private)


def trained(folder: Path, pieces: int) -> Training:
    for _ in range(pieces):
        training = Training(TINY, folder)
        for _ in range(TINY.steps // pieces):
            asyncio.run(training.step())
        asyncio.run(training.run(0, print))
    return Training(TINY, folder)


def test_two_pieces_make_the_weights_of_one_and_the_folder_runs(tmp_path: Path) -> None:
    one, two = trained(tmp_path / "one", 1), trained(tmp_path / "two", 2)
    assert one.done == two.done == TINY.steps
    for name, weight in one.model.named_parameters():
        torch.testing.assert_close(weight, two.model.get_parameter(name), rtol=0, atol=0)
    one.finish(tmp_path / "model")
    engine = Engine.load(tmp_path / "model", kv_tokens=2048)
    item = cover(0, ())
    asked: dict[str, Any] = dict(PARAMS)
    result = engine.run(programs.hogwild, item.task(), workers=2, budget=Budget(ticks=12), seed=1, **asked)
    assert len((result.answer or "").split()) > 4


@pytest.mark.slow
def test_the_loss_falls(tmp_path: Path) -> None:
    training = Training(Recipe(steps=200, tokens=800), tmp_path)
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for _ in range(120):
        name, found = asyncio.run(training.step())
        first.setdefault(name.split()[0], float(found.mean()))
        last[name.split()[0]] = float(found.mean())
    assert last["cover"] < 0.8 * first["cover"]
    assert last["enquiry"] < 0.9 * first["enquiry"], "a task of two hops, which takes a thousand steps"
