"""What a study's table says: each arm's scores with intervals, and pairs of arms on the same items."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from kvorum.lab.statistics.intervals import Interval, Pair, holm, mean, pair, wilson
from kvorum.lab.study.arms import REAL

MARGIN = 0.1
"""Mean scores within this are called the same by the equivalence test."""


@dataclass(frozen=True)
class Arm:
    """An arm on one task at one budget and team size: ``score`` is over item means, ``solved`` over runs."""

    where: tuple[str, str, int, int]
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

    where: tuple[str, str, int, int]
    one: str
    other: str
    pair: Pair
    p: float | None


def arms(table: Any) -> list[Arm]:
    """Every arm, by (model, task, team size, budget)."""
    found = []
    for (model, task, team, budget, arm), rows in table.groupby(["model", "task", "team", "budget", "arm"], sort=True):
        by_item = rows.groupby("item")["score"].mean()
        found.append(
            Arm(
                (str(model), str(task), int(team), int(budget)),
                str(arm),
                mean(list(by_item)),
                wilson(int(rows["solved"].sum()), len(rows)),
                float(rows["critical_ticks"].mean()),
                float(rows["decode_equivalents"].mean()),
                float(rows["wall_seconds"].mean()),
                float((rows["outcome"] == "forced").mean()),
            )
        )
    return found


def comparisons(table: Any, margin: float = MARGIN) -> list[Comparison]:
    """Each program's real channel against its controls and against one worker, at the same budget and team size."""
    found: list[Comparison] = []
    for (model, task, team, budget), rows in table.groupby(["model", "task", "team", "budget"], sort=True):
        there = set(rows["arm"])
        for program, channel in REAL.items():
            one = f"{program}/{channel}"
            others = [arm for arm in sorted(there) if arm.startswith((f"{program}/", "solo@", "vote/")) and arm != one]
            for other in others if one in there else []:
                a, b = (_runs(rows, arm) for arm in (one, other))
                both = a.index.intersection(b.index)
                if not len(both):
                    continue
                a, b = a.loc[both], b.loc[both]
                scores = [part.groupby("item")["score"].mean() for part in (a, b)]
                result = pair(
                    list(scores[0]), list(scores[1]), list(a["solved"] == 1), list(b["solved"] == 1), margin
                )  # fmt: skip
                found.append(Comparison((str(model), str(task), int(team), int(budget)), one, other, result, None))
    chances = [c.pair.p for c in found if c.pair.p is not None]
    corrected = iter(holm(chances))
    return [Comparison(c.where, c.one, c.other, c.pair, None if c.pair.p is None else next(corrected)) for c in found]


def _runs(rows: Any, arm: str) -> Any:
    return rows[rows["arm"] == arm].set_index(["item", "seed"]).sort_index()


def floors(table: Any) -> list[tuple[str, float, float, float]]:
    """Of each task: the mean score of random answers, of the constant one, and of the script."""
    once = table.drop_duplicates(["task", "item", "team"])
    means = once.groupby("task")[["floor_random", "floor_constant", "ceiling"]].mean()
    rows = zip(means.index, means.to_numpy(), strict=True)
    return [(str(task), float(row[0]), float(row[1]), float(row[2])) for task, row in rows]


COORDINATION = (
    "written", "redundancy", "overlap", "division", "reuse", "reuse_lag", "plans", "plan_kept", "plan_followed",
    "plan_respected", "reacted", "reaction_ticks",
)  # fmt: skip


def coordination(table: Any) -> list[tuple[tuple[str, str, int, int], str, dict[str, float | None]]]:
    """Means of what was counted, by place and arm; None where no run of them says anything, or none counted it."""
    found = []
    known = [name for name in COORDINATION if name in table]
    teams = table[table["workers"] > 1]
    for (model, task, team, budget, arm), rows in teams.groupby(["model", "task", "team", "budget", "arm"], sort=True):
        means = dict.fromkeys(COORDINATION, math.nan) | {name: float(rows[name].mean()) for name in known}
        told = {name: None if math.isnan(value) else value for name, value in means.items()}
        found.append(((str(model), str(task), int(team), int(budget)), str(arm), told))
    return found
