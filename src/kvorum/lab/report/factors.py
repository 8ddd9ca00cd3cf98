"""The part of a report that is about factors: what the arms of the design came to, the effects, and the controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kvorum.lab.report.page import WORDS, Piece, Table
from kvorum.lab.report.shown import chance, ends
from kvorum.lab.statistics.compare import MARGIN
from kvorum.lab.statistics.factorial import ALL, ITEM, Effect, Levels, complete, effects
from kvorum.lab.statistics.intervals import Interval, corrected, mean, pair, wilson
from kvorum.lab.study.study import Study

if TYPE_CHECKING:
    from pandas import DataFrame

MEASURES = {
    "score": "score",
    "unreadable": "unreadable",
    "total_tokens": "tokens",
    "decoded": "written",
    "wall_seconds": "seconds",
}
"""The columns of a table that effects are told of, and what they are called."""
_RUNS = ("items", "score", "score 95%", "unreadable", "wrong", "tokens", "written", "seconds")


def designs(study: Study) -> list[Levels]:
    """The designs of a study, one for each program whose arms have factors."""
    found: dict[str, dict[str, dict[str, bool]]] = {}
    arms = {cell.arm: (cell.program, cell.label) for cell in study.cells}
    levels = {(arm.program, arm.label): dict(arm.levels) for arm in study.arms if arm.levels}
    for name, key in arms.items():
        if key in levels:
            found.setdefault(key[0], {})[name] = levels[key]
    return list(found.values())


def pieces(study: Study, table: DataFrame) -> list[Piece]:
    """A section for each model and design; nothing where there is none, or no item of it is complete."""
    found: list[Piece] = []
    for levels in designs(study):
        for model, runs in table.groupby("model", sort=False):
            rows = runs.assign(unreadable=1 - runs["readable"])
            if len(complete(rows, list(levels))):
                found += _section(rows, levels, f" of {model}" if table["model"].nunique() > 1 else "")
    return found


def _section(rows: DataFrame, levels: Levels, of: str) -> Iterator[Piece]:
    told = effects(rows, levels, list(MEASURES))
    program = next(iter(levels)).partition("/")[0]
    others = [arm for arm in dict.fromkeys(rows["arm"]) if arm not in levels and arm.startswith(f"{program}/")]
    yield f"## Factors{of}"
    yield WORDS["factors"]
    yield Table(
        ["arm", *_RUNS],
        [[arm.removeprefix(f"{program}/"), *_runs(rows[rows["arm"] == arm])] for arm in [*levels, *others]],
    )
    yield f"### Effects on the score{of}"
    yield _outcome(told)
    yield Table(["task", "of", "items", "effect", "95%", "Holm p"], list(_effects(told, "score")), lead=1)
    yield f"### Effects on everything else{of}, over all tasks"
    names = [name for name in MEASURES if name != "score"]
    factors = [effect.factors for effect in told if effect.task == ALL and effect.measure == "score"]
    shown = {(effect.factors, effect.measure): effect.value for effect in told if effect.task == ALL}
    yield Table(
        ["of", *(MEASURES[name] for name in names)],
        [[" × ".join(some), *(_with_ends(shown[some, name]) for name in names)] for some in factors],
    )
    full = next(arm for arm, on in levels.items() if all(on.values()))
    if others:
        yield f"### Controls{of}, each minus {full.removeprefix(f'{program}/')}"
        yield Table(
            ["arm", "task", "items", "score", "beside", "difference", "95%", "McNemar p", "Holm p", "same p"],
            list(_controls(rows, full, others)),
            lead=1,
        )


def _runs(rows: DataFrame) -> list[str]:
    score, count = mean(list(rows.groupby(list(ITEM))["score"].mean())), len(rows)
    wrong = int((rows["solved"] + rows["unreadable"] == 0).sum())
    means = [
        f"{rows[name].mean():.{digits}f}" for name, digits in (("total_tokens", 0), ("decoded", 1), ("wall_seconds", 1))
    ]
    solved = int(rows["solved"].sum())
    interval = wilson(solved, count) if set(rows["score"]) <= {0, 1} else score
    return [str(score.n), f"{score.value:.2f}", ends(interval), str(int(rows["unreadable"].sum())), str(wrong), *means]


def _effects(told: Sequence[Effect], measure: str) -> Iterator[list[str]]:
    for effect in told:
        if effect.measure == measure:
            one = effect.value
            name = " × ".join(effect.factors)
            yield [effect.task, name, str(one.n), f"{one.value:+.2f}", ends(one), chance(effect.p)]


def _controls(rows: DataFrame, full: str, others: Sequence[str]) -> Iterator[list[str]]:
    found = []
    for arm in others:
        both = complete(rows, [arm, full])
        for task in [ALL, *dict.fromkeys(both["task"])] * bool(len(both)):
            here = both if task == ALL else both[both["task"] == task]
            one, other = (here[here["arm"] == name].set_index(list(ITEM)).sort_index() for name in (arm, full))
            told = pair(
                list(one["score"]), list(other["score"]), list(one["solved"] == 1), list(other["solved"] == 1), MARGIN
            )
            scores = [f"{one['score'].mean():.2f}", f"{other['score'].mean():.2f}"]
            shown = [arm.partition("/")[2], task, str(len(one)), *scores, f"{told.difference.value:+.2f}"]
            found.append(([*shown, ends(told.difference), chance(told.mcnemar)], told))
    for (cells, told), p in zip(found, corrected([told.p for _, told in found]), strict=True):
        yield [*cells, chance(p), chance(told.equivalence)]


def _outcome(told: Sequence[Effect]) -> str:
    """Which effects over all tasks are found, and which are not."""
    here = [effect for effect in told if effect.task == ALL and effect.measure == "score"]
    found = [effect for effect in here if effect.p is not None and effect.p < 0.05]
    lost = [" × ".join(effect.factors) for effect in here if effect not in found]
    some = ", ".join(f"{' × '.join(effect.factors)} ({effect.value.value:+.2f})" for effect in found) or "none"
    return f"Over all tasks, after Holm's correction (p < 0.05): {some}. Not found: {', '.join(lost) or 'none'}."


def _with_ends(value: Interval) -> str:
    return f"{value.value:+.2f} ({ends(value)})"
