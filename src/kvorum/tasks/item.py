"""One face for all problems of the lab: an item, what its answers are worth, and what answering blindly would earn.

An item is one problem, made from a seed. It is told to a team (``prompt``, and ``private`` parts that one worker alone
is told) or to one worker that is given everything (``whole``). Its verifier is exact and credits parts one by one. The
floor is what an answer earns that was given without thinking; the ceiling what a script earns that knows the solution.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from types import MappingProxyType
from typing import Any

from kvorum.runs.program import Task
from kvorum.tasks.scoring import AnswerPart, Score, credit, joined


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A problem. ``given``: what a program is told beside it or in its stead, by its name; ``programs``: those it is
    for, if not all. A program that plays only tasks made for it must be among ``given``."""

    family: str
    seed: int
    prompt: str
    score: Callable[[str | None], Score]
    solution: str
    """The script's answer: the ceiling."""
    guess: Callable[[random.Random], str]
    """A random answer of the right form."""
    constant: str
    """One fixed answer of the right form, the same for every item of the family."""
    parts: Sequence[AnswerPart] = ()
    private: Mapping[str, str] = field(default_factory=dict)
    whole: str = ""
    """What one worker that is given everything is told; the prompt where nothing is private."""
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """By program, what its problem is in place of the prompt: a text to be read, where the rest stands in ``given``."""
    programs: tuple[str, ...] = ()
    parts_given: bool = False
    """Whether the parts' answers stand in the prompt and count all the same where a worker writes them."""

    @property
    def name(self) -> str:
        """``family/seed``."""
        return f"{self.family}/{self.seed}"

    def task(self, *, whole: bool = False, program: str = "") -> Task:
        """As a task of the engine: for a team, or ``whole`` for one worker that is given everything; in the words of
        ``program``, where it has its own."""

        def verify(answer: str | None) -> float:
            return self.score(answer).soft

        if program in self.texts:
            return Task(self.texts[program], verify, self.name)
        if whole:
            return Task(self.whole or self.prompt, verify, self.name)
        return Task(self.prompt, verify, self.name, dict(self.private))

    def floor(self, draws: int = 200) -> dict[str, float]:
        """Soft scores: the mean of ``random`` answers, the ``constant`` one, and the ``ceiling``."""
        draw = random.Random(self.seed)
        return {
            "random": fmean(self.score(self.guess(draw)).soft for _ in range(draws)),
            "constant": self.score(self.constant).soft,
            "ceiling": self.score(self.solution).soft,
        }


def item_of_parts(
    family: str,
    seed: int,
    prompt: str,
    parts: Sequence[AnswerPart],
    *,
    guess: Callable[[random.Random, str], str],
    constant: str,
    private: Mapping[str, str] = MappingProxyType({}),
    whole: str = "",
) -> Item:
    """An item whose answer names that of each part, "a: 7; b: 9", and is credited part by part.

    ``guess`` makes a random answer for the part of that name; ``constant`` is the fixed one of every part.
    """

    def guess_all(draw: random.Random) -> str:
        return joined({part.name: guess(draw, part.name) for part in parts})

    solution = joined({part.name: part.answer for part in parts})
    same = joined({part.name: constant for part in parts})
    score = partial(credit, parts=parts)
    return Item(family, seed, prompt, score, solution, guess_all, same, parts, private, whole)
