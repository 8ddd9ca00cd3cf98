"""Writes the tables of docs/evidence/, and what is advised, from finished cells: run it when there are more.

Each table stands between two marks of its page; the rest is left alone. A test compares both.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import pandas as pd

from kvorum.jsontypes import Json
from kvorum.lab.advice.advice import MEASURED, PLAIN, sorts
from kvorum.lab.report.factors import pieces
from kvorum.lab.report.gallery import finished_studies, overview
from kvorum.lab.report.page import Picture, Piece, Table, as_markdown
from kvorum.lab.statistics.claims import outcomes
from kvorum.lab.statistics.compare import over_tasks
from kvorum.lab.statistics.factorial import ALL
from kvorum.lab.study.study import Study
from kvorum.lab.study.table import finished
from kvorum.runs.worker import NAMES
from kvorum.tasks.ladder.teams import KINDS, team_problem

ROOT = Path(__file__).parent.parent
JOB = ["task", "item", "seed"]
JOBS = ("everyday", "sharing")
"""Studies of everyday jobs; no job is in both."""
DOCS, STUDIES = ROOT / "docs", ROOT / "studies"


def claims() -> list[Piece]:
    """What all studies claim, and the picture of it."""
    studies = finished_studies(STUDIES)
    return overview({path: outcomes(table, study.claims) for path, (study, table) in studies.items()})


def factors(name: str) -> list[Piece]:
    """What the report of a study says of its factors."""
    study = Study.read(STUDIES / f"{name}.yaml")
    table = finished(study, STUDIES / f"{name}-results", kept=False)
    assert table is not None
    told = [shorter(piece) for piece in pieces(study, table)[1:]]  # without its heading
    return [f"{len(table)} of {len(study.cells)} cells are finished.", *told]


def floors() -> list[Piece]:
    """How often scripts solve the problems of the ladder's teams: floors, the rule without a memory, the ceiling."""
    rows = []
    for kind in KINDS:
        shares: list[list[float]] = []
        for seed in range(300):
            draw = random.Random(f"floor/{kind}/{seed}")
            made = team_problem(kind, draw, NAMES[:4])
            blind = [made.guess(draw) for _ in range(20)]
            ways: list[Sequence[Mapping[str, str]]] = [blind, [made.begins], [made.play(forgets=True)], [made.play()]]
            shares.append([fmean(made.score_of(answers).solved for answers in way) for way in ways])
        rows.append([kind, *(f"{fmean(column):.2f}" for column in zip(*shares, strict=True))])
    names = ["problems", "chance", "keeping what one had", "the rule without a memory", "the rule"]
    return ["Solved, of 300 problems of each kind (chance: 20 answers to each), by", Table(names, rows)]


TABLES: dict[str, tuple[str, Callable[[], list[Piece]]]] = {
    "claims": ("evidence/claims.md", claims),
    "ladder": ("evidence/harness.md", partial(factors, "ladder")),
    "floors": ("evidence/harness.md", floors),
    "teams": ("evidence/harness.md", partial(factors, "team_ladder")),
}
"""Of each table the page it stands on, from the docs' folder, and what makes it."""


def advice() -> list[dict[str, Json]]:
    """What ``kvorum solve --best`` and ``kvorum models`` tell: sorts of jobs under each program, beside one reply."""
    tables = [finished(Study.read(STUDIES / f"{name}.yaml"), STUDIES / f"{name}-results", kept=False) for name in JOBS]
    found: list[dict[str, Json]] = []
    runs = pd.concat(tables)
    for model, program in dict.fromkeys(zip(runs["model"].tolist(), runs["program"].tolist(), strict=True)):
        for name, sort in sorts().items():
            # A study that has but some kinds of a sort would let these count for more than the others.
            whole = [one for one in tables if one is not None and set(sort.kinds) <= set(one["task"])]
            jobs = pd.concat(whole)
            jobs = jobs[jobs["model"].eq(model) & jobs["task"].isin(list(sort.kinds))]
            own = jobs[jobs["program"] == program].set_index(JOB)["score"]
            base = jobs[jobs["program"] == PLAIN].set_index(JOB)["score"]
            if len(own):
                both = own.index.intersection(base.index)
                beside = None if program == PLAIN or not len(both) else by_kind(own[both] - base[both])
                counts = {"kinds": own.index.get_level_values("task").nunique(), "jobs": len(own)}
                where = {"model": str(model), "sort": name, "program": str(program)}
                found.append({**where, **counts, "score": by_kind(own), "beside": beside})
    return found


def by_kind(scores: pd.Series[float]) -> list[Json]:
    """The mean with the ends of its interval, which knows that jobs of a kind are alike."""
    value = over_tasks(scores)
    return [round(one, 3) for one in (value.value, value.low, value.high)]


def written(page: str, name: str, made: list[Piece]) -> str:
    """The page with what is made between the marks of the table of this name."""
    begin, end = f"<!-- {name}: written by tools/evidence_tables.py -->", f"<!-- end of {name} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{as_markdown(made, '../images')}\n{end}{rest.split(end)[1]}"


def shorter(piece: Piece) -> Piece:
    """A table without what single tasks say of interactions and controls, which is in the report."""
    if not isinstance(piece, Table) or "task" not in piece.head:
        return piece
    at = piece.head.index("task")
    effects = "of" in piece.head
    kept = [row for row in piece.rows if row[at] == ALL or (effects and "×" not in row[piece.head.index("of")])]
    return replace(piece, rows=kept)


if __name__ == "__main__":
    lines = ",\n  ".join(json.dumps(one) for one in advice())
    MEASURED.write_text(f"[\n  {lines}\n]\n", encoding="utf-8")
    for name, (page, make) in TABLES.items():
        path, made = DOCS / page, make()
        path.write_text(written(path.read_text(encoding="utf-8"), name, made), encoding="utf-8")
        for piece in made:
            if isinstance(piece, Picture):
                (DOCS / "images" / f"{piece.name}.svg").write_text(piece.svg, encoding="utf-8")
