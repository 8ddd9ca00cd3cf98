"""Which program is likely to pay for a job with a model, and what a model is good for, by what was measured.

The figures stand in ``measured.json``, which ``tools/evidence_tables.py`` writes from the study of everyday jobs; the
sorts of jobs in ``sorts.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.lab import read_yaml
from kvorum.wording import plural

if TYPE_CHECKING:
    from kvorum.api import Engine

GOOD, BAD = 0.8, 0.3
"""Mean scores from which a model is called good for a sort of job, and up to which it is called bad."""
PLAIN = "plain"
COMMAND = 'kvorum solve "..."'
MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort of job. ``program``: the one that is made for it; empty: one reply."""

    name: str
    words: str
    kinds: Sequence[str]
    program: str = ""
    command: str = COMMAND
    gain: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a program came to on a sort of job: the mean score of ``jobs``, which are of so many ``kinds``, and the
    difference from one plain reply on the same jobs, each as (value, low, high) of a 95% interval."""

    model: str
    sort: str
    program: str
    kinds: int
    jobs: int
    score: tuple[float, float, float]
    beside: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        told = f"{self.score[0]:.2f} {_ends(self.score)} of {plural(self.jobs, 'job')} of {plural(self.kinds, 'kind')}"
        if self.beside is None:
            return told
        return f"{told}, {self.beside[0]:+.2f} {_ends(self.beside)} over one plain reply"


@dataclass(frozen=True, slots=True)
class Advice:
    """Of a job: which sort it is, how sure the model is of that, and what was measured of this sort. ``model``: with
    which; another one where nothing was measured with the one that is asked."""

    sort: Sort
    sure: float
    model: str
    found: Sequence[Measured]

    @property
    def program(self) -> str:
        """The one that is likely to pay: what is made for the sort, unless it was measured to do worse than plain."""
        own = next((one for one in self.found if one.program == self.sort.program), None)
        worse = own is not None and own.beside is not None and own.beside[2] < 0
        return self.sort.program if self.sort.program and not worse else PLAIN

    @property
    def command(self) -> str:
        """How it is called."""
        return self.sort.command if self.program == self.sort.program else COMMAND


@cache
def sorts() -> dict[str, Sort]:
    """All sorts of jobs, by name."""
    return {name: Sort(name, **about) for name, about in read_yaml(__file__, "sorts.yaml").items()}


@cache
def measured() -> Sequence[Measured]:
    """All that was measured, on all models."""
    kept = json.loads(MEASURED.read_text(encoding="utf-8"))
    return [
        Measured(**{**one, "score": tuple(one["score"]), "beside": tuple(one["beside"]) if one["beside"] else None})
        for one in kept
    ]


def suits(model: str) -> tuple[list[str], list[str]]:
    """The sorts of jobs that a model does well in one plain reply, and those that it fails at; both empty where nothing
    was measured."""
    scores = {one.sort: one.score[0] for one in measured() if one.model == model and one.program == PLAIN}
    return [name for name, score in scores.items() if score >= GOOD], [n for n, s in scores.items() if s <= BAD]


def advise(engine: Engine, job: str) -> Advice:
    """Ask the model which sort of job this is, and look up what was measured of it."""
    from kvorum import Choice

    (decision,) = engine.decide(
        job, [Choice("What does this ask for?", options=[one.words for one in sorts().values()])]
    )
    sort = next(one for one in sorts().values() if one.words == decision.value)
    about = [one for one in measured() if one.sort == sort.name]
    model = engine.name if any(one.model == engine.name for one in about) else next((one.model for one in about), "")
    return Advice(sort, max(decision.probabilities), model, [one for one in about if one.model == model])


def _ends(value: tuple[float, float, float]) -> str:
    return f"[{value[1]:.2f}, {value[2]:.2f}]"
