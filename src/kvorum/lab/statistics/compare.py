"""What a study's table says: each arm's scores with intervals, and pairs of arms on the same items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from kvorum.lab.measure.own_measures import OWN
from kvorum.lab.statistics.intervals import Interval, Pair, clustered, corrected, mean, pair, wilson
from kvorum.programs import REGISTRY

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MARGIN = 0.1
"""Mean scores within this are called the same by the equivalence test."""


class Place(NamedTuple):
    """Where arms stand beside each other. ``team``: its size; ``budget``: in ticks."""

    model: str
    task: str
    team: int
    budget: int


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
    """The real channel's arm against another one, on the same items. ``p`` is corrected (Holm) over the whole table;
    ``same``: the share of runs in which both give the same answer, word for word."""

    where: Place
    one: str
    other: str
    pair: Pair
    same: Interval
    p: float | None = None


def _by_arm(table: DataFrame) -> Iterator[tuple[Place, str, DataFrame]]:
    """The runs of every arm at every place."""
    for (model, task, team, budget, arm), rows in table.groupby([*Place._fields, "arm"], sort=True):
        yield Place(str(model), str(task), int(team), int(budget)), str(arm), rows


def runs_by_place(table: DataFrame) -> dict[Place, dict[str, DataFrame]]:
    """The runs of each arm at each place, by item and seed."""
    places: dict[Place, dict[str, DataFrame]] = {}
    for where, arm, rows in _by_arm(table):
        places.setdefault(where, {})[arm] = rows.set_index(["item", "seed"]).sort_index()
    return places


def arms(table: DataFrame) -> list[ArmScore]:
    """Every arm, by (model, task, team size, budget)."""
    return [
        ArmScore(
            where=where,
            arm=arm,
            score=mean(list(rows.groupby("item")["score"].mean())),
            solved=wilson(int(rows["solved"].sum()), len(rows)),
            ticks=float(rows["critical_ticks"].mean()),
            tokens=float(rows["decode_equivalents"].mean()),
            seconds=float(rows["wall_seconds"].mean()),
            forced=float((rows["outcome"] == "forced").mean()),
        )
        for where, arm, rows in _by_arm(table)
    ]


def comparisons(table: DataFrame) -> list[Comparison]:
    """Each program's real channel against its controls and against programs in which nobody sees anybody, at the same
    budget and team size."""
    found: list[Comparison] = []
    for (where, runs), program in product(runs_by_place(table).items(), REGISTRY.values()):
        one = f"{program.name}/{program.real}"
        for other, rows in runs.items() if one in runs else ():
            against = rows["program"].iloc[0]
            both = rows.index.intersection(runs[one].index)
            if other != one and (against == program.name or not REGISTRY[against].real) and len(both):
                a, b = runs[one].loc[both], rows.loc[both]
                first, second = (list(part.groupby("item")["score"].mean()) for part in (a, b))
                result = pair(first, second, list(a["solved"] == 1), list(b["solved"] == 1), MARGIN)
                answers = a["answer"].fillna("") == b["answer"].fillna("")
                found.append(Comparison(where, one, other, result, wilson(int(answers.sum()), len(answers))))
    better = corrected([c.pair.p for c in found])
    return [replace(c, p=p) for c, p in zip(found, better, strict=True)]


def own(table: DataFrame) -> list[tuple[Place, str, dict[str, Interval]]]:
    """What programs measured themselves, by place and arm, over item means; arms that measured nothing are left out.

    In the order in which a program declares its channels, whichever of them a study runs first."""
    found, order = [], _as_declared(table)
    for where, arm, rows in _by_arm(table):
        columns = [name for name in rows if str(name).startswith(OWN) and rows[name].notna().any()]
        means = {str(name).removeprefix(OWN): list(rows.groupby("item")[name].mean().dropna()) for name in columns}
        if means:
            found.append((where, arm, {name: mean(values) for name, values in means.items()}))
    return sorted(found, key=lambda one: (one[0], order.index(one[1])))


def _as_declared(table: DataFrame) -> list[str]:
    """The arms, program by program, each program's in the order of its channels."""
    arms = table.drop_duplicates("arm")
    programs = list(dict.fromkeys(arms["program"]))
    places = []
    for at, (arm, program, channel) in enumerate(zip(arms["arm"], arms["program"], arms["channel"], strict=True)):
        known = list(REGISTRY[program].channels) if program in REGISTRY else []
        places.append((programs.index(program), known.index(channel) if channel in known else 0, at, str(arm)))
    return [arm for *_, arm in sorted(places)]


def over_tasks(scores: Series[float]) -> Interval:
    """The mean of scores indexed by task and others, with an interval that knows that runs of a task are alike."""
    return clustered([list(some) for _, some in scores.groupby(level="task", sort=False)])


def floors(table: DataFrame) -> list[tuple[str, float, float, float]]:
    """Of each task: the mean score of random answers, of the constant one, and of the script."""
    once = table.drop_duplicates(["task", "item", "team"])
    means = once.groupby("task")[["floor_random", "floor_constant", "ceiling"]].mean()
    return [(str(task), float(random), float(same), float(best)) for task, random, same, best in means.itertuples()]


COORDINATION = (
    "written",
    "named",
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
    "first_word",
    "first_right",
)
"""The columns of a table that count what workers take from each other, and when they begin to answer."""


def coordination(table: DataFrame) -> list[tuple[Place, str, dict[str, float | None]]]:
    """Means of what was counted, by place and arm; None where no run of them says anything, or none counted it."""
    teams = table[table["workers"] > 1].reindex(columns=table.columns.union(COORDINATION, sort=False))
    return [
        (where, arm, {name: None if rows[name].isna().all() else float(rows[name].mean()) for name in COORDINATION})
        for where, arm, rows in _by_arm(teams)
    ]
