"""Factorial designs: what each factor is worth, and two of them together, on items that every combination was given.

The effect of a factor is the mean of its arms minus the mean of the others. An interaction is how much larger the
effect of one factor is with the other one than without it. Both are values of each item, so that intervals are over
items, as everywhere in the lab.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from kvorum.lab.statistics.intervals import Interval, corrected, mean, sign_flips

if TYPE_CHECKING:
    from pandas import DataFrame

ALL = "all"
"""In place of a task: all of them."""
ITEM = ("task", "team", "budget", "item", "seed")
"""The columns that say which item a run was on."""

Levels = Mapping[str, Mapping[str, bool]]
"""Of each arm of a design, by its name, which factors are at their second level."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one factor, or several together (an interaction), change in a measure. ``p``: of sign flips, corrected
    (Holm) over the effects on that measure in that task; None: nothing can be said."""

    task: str
    factors: Sequence[str]
    measure: str
    value: Interval
    p: float | None


def complete(table: DataFrame, arms: Sequence[str]) -> DataFrame:
    """The runs of these arms on the items that all of them were run on."""
    rows = table[table["arm"].isin(arms)]
    return rows[rows.groupby(list(ITEM))["arm"].transform("nunique") == len(arms)]


def effects(table: DataFrame, levels: Levels, measures: Sequence[str]) -> list[Effect]:
    """All main effects and interactions, over all tasks and in each of them; of tasks with complete items alone."""
    rows = complete(table, list(levels))
    tasks = list(dict.fromkeys(rows["task"]))
    return [
        effect
        for task in [ALL, *tasks] * bool(tasks)
        for measure in measures
        for effect in _corrected(_effects(rows if task == ALL else rows[rows["task"] == task], levels, task, measure))
    ]


def _effects(rows: DataFrame, levels: Levels, task: str, measure: str) -> Iterator[Effect]:
    wide = rows.pivot_table(index=list(ITEM), columns="arm", values=measure)[list(levels)]
    factors = list(next(iter(levels.values())))
    for size in range(1, len(factors) + 1):
        for chosen in combinations(factors, size):
            signs = np.array([prod(1 if arm[name] else -1 for name in chosen) for arm in levels.values()])
            values = wide.to_numpy(dtype=float) @ signs / 2 ** (len(factors) - size)
            yield Effect(task, chosen, measure, mean(list(values)), sign_flips(values))


def _corrected(found: Iterator[Effect]) -> list[Effect]:
    some = list(found)
    better = corrected([effect.p for effect in some])
    return [replace(effect, p=p) for effect, p in zip(some, better, strict=True)]
