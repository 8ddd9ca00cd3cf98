"""Writes the tables of the ladder's study into docs/evidence.md, from its finished cells: run it when there are more.

The tables stand between two marks of the page; the rest of it is left alone. A test compares both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from kvorum.lab.report.factors import pieces
from kvorum.lab.report.page import Piece, Table, as_markdown
from kvorum.lab.statistics.factorial import ALL
from kvorum.lab.study.study import Study
from kvorum.lab.study.table import Record, tabulate
from kvorum.store.study_records import Records

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "evidence.md"
STUDY, RESULTS = ROOT / "studies" / "ladder.yaml", ROOT / "studies" / "ladder-results"
BEGIN, END = "<!-- ladder: written by tools/ladder_tables.py -->", "<!-- end of ladder -->"


def written(page: str) -> str:
    """The page with the tables of the cells that are finished between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{rest.split(END)[1]}"


def tables() -> str:
    """What the report of the study says of its factors, a heading deeper."""
    asked, records = Study.read(STUDY), Records[Record](RESULTS)
    done = [cell.key for cell in asked.cells if cell.key in records.done]
    with TemporaryDirectory() as folder:
        records.path = Path(folder) / records.path.name
        table = pd.read_csv(tabulate(records, done))
    told = [shorter(piece) for piece in pieces(asked, table)[1:]]  # without its heading
    return f"{len(done)} of {len(asked.cells)} cells are finished. {as_markdown(told)}"


def shorter(piece: Piece) -> Piece:
    """A table without what single tasks say of interactions and controls, which is in the report."""
    if not isinstance(piece, Table) or "task" not in piece.head:
        return piece
    at = piece.head.index("task")
    effects = "of" in piece.head
    kept = [row for row in piece.rows if row[at] == ALL or (effects and "×" not in row[piece.head.index("of")])]
    return replace(piece, rows=kept)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
