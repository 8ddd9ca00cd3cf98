"""What a study's table says: each arm's scores with intervals, and pairs of arms on the same items."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from kvorum.lab.statistics.intervals import Interval, Pair, holm, mean, pair, wilson
from kvorum.programs import REGISTRY

if TYPE_CHECKING:
    from pandas import DataFrame

Place: TypeAlias = tuple[str, str, int, int]
"""Where arms stand beside each other: model, task, team size, budget."""

MARGIN = 0.1
"""Mean scores within this are called the same by the equivalence test."""
_PLACE = ["model", "task", "team", "budget"]


@dataclass(frozen=True)
class ArmScore:
    """An arm on one task at one budget and team size: ``score`` is over item means, ``solved`` over runs.

    ``ticks``, ``tokens`` (decode-equivalent) and ``seconds`` are means of a run; ``forced``: the share of those
    whose answer was forced.
    """

    where: Place
    arm: str
    score: Interval
    solved: Interval
    ticks: float
    tokens: float
    seconds: float
    forced: float


@dataclass(frozen=True)
class Comparison:
    """The shared-cache arm against another one, on the same items. ``p`` is corrected (Holm) over the whole table."""

    where: Place
    one: str
    other: str
    pair: Pair
    p: float | None


def arms(table: DataFrame) -> list[ArmScore]:
    """Every arm, by (model, task, team size, budget)."""
    found = []
    for (model, task, team, budget, arm), rows in table.groupby([*_PLACE, "arm"], sort=True):
        found.append(
            ArmScore(
                where=(str(model), str(task), int(team), int(budget)),
                arm=str(arm),
                score=mean(list(rows.groupby("item")["score"].mean())),
                solved=wilson(int(rows["solved"].sum()), len(rows)),
                ticks=float(rows["critical_ticks"].mean()),
                tokens=float(rows["decode_equivalents"].mean()),
                seconds=float(rows["wall_seconds"].mean()),
                forced=float((rows["outcome"] == "forced").mean()),
            )
        )
    return found


def comparisons(table: DataFrame, margin: float = MARGIN) -> list[Comparison]:
    """Each program's real channel against its controls and against programs in which nobody sees anybody, at the same
    budget and team size."""
    found: list[Comparison] = []
    for (model, task, team, budget), rows in table.groupby(_PLACE, sort=True):
        where = (str(model), str(task), int(team), int(budget))
        programs = dict(zip(rows["arm"], rows["program"], strict=True))
        for program in REGISTRY.values():
            one = f"{program.name}/{program.real}"
            for other in sorted(programs) if one in programs else []:
                apart = not REGISTRY[programs[other]].real
                if other == one or not (apart or programs[other] == program.name):
                    continue
                a, b = (rows[rows["arm"] == arm].set_index(["item", "seed"]).sort_index() for arm in (one, other))
                both = a.index.intersection(b.index)
                if len(both):
                    a, b = a.loc[both], b.loc[both]
                    first, second = (list(part.groupby("item")["score"].mean()) for part in (a, b))
                    result = pair(first, second, list(a["solved"] == 1), list(b["solved"] == 1), margin)
                    found.append(Comparison(where, one, other, result, None))
    chances = [c.pair.p for c in found if c.pair.p is not None]
    corrected = iter(holm(chances))
    return [Comparison(c.where, c.one, c.other, c.pair, None if c.pair.p is None else next(corrected)) for c in found]


def floors(table: DataFrame) -> list[tuple[str, float, float, float]]:
    """Of each task: the mean score of random answers, of the constant one, and of the script."""
    once = table.drop_duplicates(["task", "item", "team"])
    means = once.groupby("task")[["floor_random", "floor_constant", "ceiling"]].mean()
    rows = zip(means.index, means.to_numpy(), strict=True)
    return [(str(task), float(row[0]), float(row[1]), float(row[2])) for task, row in rows]


COORDINATION = (
    "written",
    "redundancy",
    "overlap",
    "division",
    "reuse",
    "reuse_lag",
    "plans",
    "plan_kept",
    "plan_followed",
    "plan_respected",
    "reacted",
    "reaction_ticks",
)
"""The columns of a table that count what workers take from each other."""


def coordination(table: DataFrame) -> list[tuple[Place, str, dict[str, float | None]]]:
    """Means of what was counted, by place and arm; None where no run of them says anything, or none counted it."""
    found = []
    known = [name for name in COORDINATION if name in table]
    teams = table[table["workers"] > 1]
    for (model, task, team, budget, arm), rows in teams.groupby([*_PLACE, "arm"], sort=True):
        means = {name: float(rows[name].mean()) if name in known else math.nan for name in COORDINATION}
        counted = {name: None if math.isnan(value) else value for name, value in means.items()}
        found.append(((str(model), str(task), int(team), int(budget)), str(arm), counted))
    return found
