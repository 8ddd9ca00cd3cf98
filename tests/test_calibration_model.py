"""The positive control: the committed weights make teams that ask each other and that leave out what is named.

Covers: they load, and are of the committed size; with blocks shared a team that asks is right, with blocks hidden it is
not; in the slow lane both tasks for teams of 2, 4 and 8 against what oracles reach, and what oracles reach against
drawing. Not covered: zeroed and mismatched blocks (studies/calibration-results), and training again.
"""

from __future__ import annotations

import asyncio
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kvorum import Budget, Engine, Sampling, arun, programs
from kvorum.lab.training.lessons import PARAMS
from kvorum.tasks.cover import expected_share
from kvorum.tasks.families import make

MODEL = Path(__file__).parents[1] / "studies" / "calibration-model"
UNSEEN = 1000
"""The first seed of problems that the study has not."""


@cache
def engine() -> Engine:
    return Engine.load(MODEL, kv_tokens=32768)


def written(family: str, workers: int, words: int, channel: str, count: int) -> list[tuple[float, set[str]]]:
    """Of each problem the score of the answer and the words of the solution that the team wrote, so many a worker; the
    first word of each is the prompt's tick, and not on the budget of decoded tokens."""
    asked: dict[str, Any] = dict(PARAMS)
    places = asyncio.Semaphore(24)

    async def one(seed: int) -> tuple[float, set[str]]:
        async with places:
            return await played(seed)

    async def played(seed: int) -> tuple[float, set[str]]:
        task = make(family, seed, workers)
        result = await arun(
            engine(),
            programs.hogwild,
            task.task(),
            workers=workers,
            channel=channel,
            sampling=Sampling(temperature=1.0),
            budget=Budget(decoded=(words - 1) * workers),
            seed=seed,
            **asked,
        )
        told = {word for worker in result.workers for word in worker.text.replace("\n", " ").split()}
        return task.score(result.answer).soft, told & set(task.solution.split())

    async def every() -> list[tuple[float, set[str]]]:
        return list(await asyncio.gather(*(one(UNSEEN + at) for at in range(count))))

    return asyncio.run(every())


def test_a_team_that_shares_is_right_and_one_that_is_hidden_is_not() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 2_000_000
    assert sum(score for score, _ in written("enquiry", 4, 5, "cache", 12)) >= 11
    assert sum(score for score, _ in written("enquiry", 4, 5, "none", 12)) <= 3


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "ticks"), [(2, 8), (4, 4), (8, 2)])
def test_it_reaches_what_oracles_reach(workers: int, ticks: int) -> None:
    asked = {channel: written("enquiry", workers, 5, channel, 100) for channel in ("cache", "none")}
    assert sum(score for score, _ in asked["cache"]) >= 95
    assert sum(score for score, _ in asked["none"]) <= 10, "one number in 38 is right by chance"
    for channel, seeing in (("cache", True), ("none", False)):
        share = sum(len(words) for _, words in written("cover", workers, ticks, channel, 100)) / 1600
        best = expected_share(workers, ticks, seeing=seeing)
        assert share >= 0.97 * best - 0.02, (channel, share, best)
        assert share <= best + 0.04, (channel, share, best)


@pytest.mark.parametrize("seeing", [True, False])
def test_what_oracles_reach_is_what_draws_give(seeing: bool) -> None:
    draw, workers, ticks, found = random.Random(0), 4, 4, 0
    for _ in range(2000):
        everybodys, own = set[int](), [set[int]() for _ in range(workers)]
        for _ in range(ticks):
            taken = set(everybodys)
            for mine in own:
                mine.add(draw.choice([word for word in range(16) if word not in (taken if seeing else mine)]))
                everybodys |= mine
        found += len(everybodys)
    assert found / 2000 / 16 == pytest.approx(expected_share(workers, ticks, seeing=seeing), abs=0.01)
