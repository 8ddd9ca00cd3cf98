"""The report of a study: one self-contained HTML page, and the same in Markdown with its pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.errors import BadRequest
from kvorum.lab.report import attention_maps, claims, factors, figures
from kvorum.lab.report.page import WORDS, Picture, Piece, Table, write
from kvorum.lab.report.shown import chance, ends
from kvorum.lab.statistics import compare
from kvorum.lab.statistics.beginnings import SOON, Beginning, beginnings
from kvorum.lab.statistics.claims import outcomes
from kvorum.lab.statistics.intervals import Interval
from kvorum.lab.study.study import Study

if TYPE_CHECKING:
    from pandas import DataFrame


def write_report(study: Study, table: DataFrame, folder: Path, command: str) -> list[Path]:
    """Write ``report.html`` and ``report.md`` (its pictures in ``report/``); returns their paths."""
    found = [*contents(study, table, command), *attention_maps.pieces(table, folder)]
    return write(f"Study {study.name}", found, folder, "report")


def write_attention(study: Study, table: DataFrame, folder: Path) -> list[Path]:
    """Write ``attention.html`` and ``attention.md``: whose words the workers attended to. Raises BadRequest."""
    found = attention_maps.pieces(table, folder)
    if not found:
        raise BadRequest(f"No run of {study.name} was tapped: say `attention: true` in the study, for runs to come.")
    return write(f"Study {study.name}: attention", [f"# Study {study.name}", *found], folder, "attention")


def contents(study: Study, table: DataFrame, command: str) -> list[Piece]:
    """What the report says, in order."""
    arms, pairs, floors = compare.arms(table), compare.comparisons(table), compare.floors(table)
    counted = compare.coordination(table)
    known = sorted(table.groupby(["model", "weights"]).groups)
    models = ", ".join(f"{name} ({weights} weights)" for name, weights in known)
    pieces: list[Piece] = [
        f"# Study {study.name}",
        f"{len(table)} runs of {len(study.cells)} cells, {table['item'].nunique()} items of each task, on {models}. "
        f"Made by `{command}`. Intervals are 95%: Wilson for solved, bootstrap over items for scores.",
        *claims.pieces(outcomes(table, study.claims)),
        WORDS["arms"],
        "## Floor and ceiling",
        "Mean scores of random answers, of one constant answer, and of a script that knows the solution.",
        Table(["task", "random", "constant", "script"], [[task, *map(_two, row)] for task, *row in floors]),
        "## Scores",
        _by_place(map(_score, arms)),
        *factors.pieces(study, table),
    ]
    for task, random, *_ in floors:
        pieces.append(f"### {task}")
        for model in (names := dict.fromkeys(arm.where[0] for arm in arms)):
            of = f", {model}" if len(names) > 1 else ""
            alt = f"{task}{of}: mean score against ticks, tokens and seconds; dotted: random answers"
            here = [arm for arm in arms if arm.where[:2] == (model, task)]
            pieces.append(Picture(f"score-{task}{of.replace(', ', '-')}", figures.against(here, random), alt))
    if pairs:
        forest = figures.forest(pairs, compare.MARGIN)
        pieces += [
            "## Sharing the cache against everything else",
            WORDS["pairs"].format(margin=compare.MARGIN),
            _outcome(pairs),
            _by_place(map(_pair, pairs)),
            Picture("pairs", forest, "differences with intervals; shaded: called the same"),
        ]
    if begun := beginnings(table):
        pieces += ["## When the answer begins", WORDS["beginnings"].format(soon=f"{SOON:.0%}"), _beginnings(begun)]
    if own := compare.own(table):
        pieces += ["## Measured by the programs themselves", WORDS["own"], _own(own), *_own_pictures(own)]
    if counted:
        pieces += ["## Coordination, counted", WORDS["counted"], _counted(counted)]
    return pieces


def _score(arm: compare.ArmScore) -> dict[str, str]:
    return {
        **_place(arm.where),
        "arm": arm.arm,
        "items": str(arm.score.n),
        "score": _two(arm.score.value),
        "score 95%": ends(arm.score),
        "solved": f"{round(arm.solved.value * arm.solved.n)}/{arm.solved.n}",
        "solved 95%": ends(arm.solved),
        "critical ticks": f"{arm.ticks:.0f}",
        "decode-eq. tokens": f"{arm.tokens:.0f}",
        "wall s": f"{arm.seconds:.1f}",
        "forced": f"{arm.forced:.0%}",
    }


def _place(where: compare.Place) -> dict[str, str]:
    return dict(zip(("model", "task", "team", "ticks"), map(str, where), strict=True))


def _by_place(given: Iterable[dict[str, str]]) -> Table:
    """Rows that begin with their place; a single model is named in the page's first sentence."""
    rows = list(given)
    one_model = len({row["model"] for row in rows}) == 1
    head = [name for name in rows[0] if not (one_model and name == "model")]
    return Table(head, [[row[name] for name in head] for row in rows], lead=3 if one_model else 4)


def _outcome(pairs: Sequence[compare.Comparison]) -> str:
    """What the comparisons come to, in one paragraph."""
    apart = [c for c in pairs if c.p is not None and c.p < 0.05]
    same = sum(c.pair.equivalence is not None and c.pair.equivalence < 0.05 for c in pairs)
    better = sum(c.pair.difference.value > 0 for c in apart)
    return (
        f"Of {len(pairs)} comparisons of a shared cache with a control or with one worker, {len(apart)} differ after "
        f"Holm's correction (p < 0.05): the shared cache is better in {better} and worse in {len(apart) - better}. "
        f"{same} are equivalent within ±{compare.MARGIN} (p < 0.05, not corrected). Of the others nothing can be said."
    )


def _pair(c: compare.Comparison) -> dict[str, str]:
    return {
        **_place(c.where),
        "pair": f"{c.one} − {c.other}",
        "items": str(c.pair.difference.n),
        "difference": f"{c.pair.difference.value:+.2f}",
        "95%": ends(c.pair.difference),
        "only first": str(c.pair.only_one),
        "only second": str(c.pair.only_other),
        "McNemar p": chance(c.pair.mcnemar),
        "sign flips p": chance(c.pair.p),
        "Holm p": chance(c.p),
        "same p": chance(c.pair.equivalence),
        "same answer": _two(c.same.value),
        "same answer 95%": ends(c.same),
    }


def _counted(counted: Sequence[tuple[compare.Place, str, dict[str, float | None]]]) -> Table:
    """Without the columns in which there is nothing."""
    names = [name for name in compare.COORDINATION if any(values[name] is not None for *_, values in counted)]
    rows = []
    for where, arm, values in counted:
        shown = {name.replace("_", " "): "" if (value := values[name]) is None else _two(value) for name in names}
        rows.append({**_place(where), "arm": arm, **shown})
    return _by_place(rows)


def _beginnings(found: Sequence[Beginning]) -> Table:
    def share(one: Interval | None) -> str:
        return "" if one is None else f"{_three(one)} ({ends(one)})"

    return _by_place(
        {
            **_place(begun.where),
            "arm": begun.one,
            "against all of": begun.other,
            "items": str(begun.soon.n),
            "first word": share(begun.word),
            "first right": share(begun.right),
            "of items": "" if begun.right is None else str(begun.right.n),
            f"within {SOON:.0%}": share(begun.soon),
        }
        for begun in found
    )


def _own(found: Sequence[tuple[compare.Place, str, dict[str, Interval]]]) -> Table:
    names = list(dict.fromkeys(name for *_, values in found for name in values))
    rows = []
    for where, arm, values in found:
        shown = {name: f"{_three(one)} ({ends(one)})" if (one := values.get(name)) else "" for name in names}
        rows.append({**_place(where), "arm": arm, **shown})
    return _by_place(rows)


def _own_pictures(found: Sequence[tuple[compare.Place, str, dict[str, Interval]]]) -> list[Picture]:
    """One of each place: its arms below each other, a panel for each measure."""
    pictures = []
    for where in dict.fromkeys(where for where, *_ in found):
        here = {arm: values for place, arm, values in found if place == where}
        name = "own-" + "-".join(map(str, where))
        pictures.append(Picture(name, figures.panels(here), f"{where.model}, {where.task}: what the program measured"))
    return pictures


def _three(value: Interval) -> str:
    return f"{value.value:.3g}"


def _two(value: float) -> str:
    return f"{value:.2f}"
