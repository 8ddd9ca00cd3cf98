"""All studies of a folder on one page: what they claim, and every picture of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.lab.report import claims
from kvorum.lab.report.page import WORDS, Picture, Piece, Table, write
from kvorum.lab.report.report import contents
from kvorum.lab.statistics.claims import Outcome, outcomes
from kvorum.lab.study.study import Study
from kvorum.lab.study.table import finished

if TYPE_CHECKING:
    from pandas import DataFrame

Finished = Mapping[Path, tuple[Study, "DataFrame"]]
"""Of every study's file, what it asks for and the table of its finished runs."""


def finished_studies(folder: Path) -> Finished:
    """The studies of a folder, ``NAME.yaml``, that have finished runs in ``NAME-results`` beside them.

    Raises:
        BadRequest, UnknownName: one of the files is no study.
    """
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        study = Study.read(path)
        table = finished(study, path.with_name(f"{study.name}-results"), kept=False)
        if table is not None:
            found[path] = (study, table)
    return found


def write_gallery(studies: Finished, folder: Path) -> list[Path]:
    """Write ``gallery.html`` and ``gallery.md`` (its pictures in ``gallery/``) to ``folder``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return write("What studies found", pieces(studies), folder, "gallery")


def pieces(studies: Finished) -> list[Piece]:
    """What the page says."""
    found = {path: outcomes(table, study.claims) for path, (study, table) in studies.items()}
    page: list[Piece] = ["# What studies found", *overview(found)]
    for path, (study, table) in studies.items():
        page += [f"## {study.name}", f"{len(table)} of {len(study.cells)} runs of `{path.name}`."]
        for piece in contents(study, table, ""):
            if isinstance(piece, Picture):
                page.append(Picture(f"{study.name}-{piece.name}", piece.svg, f"{study.name}: {piece.alt}"))
    return page


def overview(found: Mapping[Path, Sequence[Outcome]]) -> list[Piece]:
    """The claims of all studies as a table and as one picture; nothing where there is none."""
    everything = [one for some in found.values() for one in some]
    if not everything:
        return []
    head = ["study", "claim", "model", *claims.HEAD[1:]]
    rows = [[path.stem, *claims.row(one, named=True)] for path, some in found.items() for one in some]
    return [WORDS["claims"], claims.summary(everything), Table(head, rows, lead=1), claims.forest(everything)]
