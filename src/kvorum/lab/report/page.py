"""A page of paragraphs, tables and pictures, as one self-contained HTML file and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment

from kvorum.lab import read_yaml

WORDS: Mapping[str, str] = read_yaml(__file__, "words.yaml")
"""What reports say about their tables."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a head. Rows with the same first ``lead`` cells belong together."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    lead: int = 0

    def wordy(self) -> list[bool]:
        """Of each column whether it holds words, which stand to the left; figures stand to the right."""
        return [any(map(_words, column)) for column in zip(*self.rows, strict=True)]

    def grouped(self) -> Iterator[tuple[bool, list[str]]]:
        """The rows, and whether each begins another group than the first one. A group says only in its first row what
        its rows have in common."""
        before: Sequence[str] | None = None
        for row in self.rows:
            group = row[: self.lead]
            yield before not in (None, group), [*([""] * self.lead if group == before else group), *row[self.lead :]]
            before = group


@dataclass(frozen=True)
class Picture:
    """An SVG and what it shows."""

    name: str
    svg: str
    alt: str

    @property
    def file(self) -> str:
        """What its file is called: a model that is a folder has a path for its name."""
        return re.sub(r"[/\\]+", "-", self.name) + ".svg"


Piece = str | Table | Picture
"""A paragraph, a heading (beginning with "#"), a table or a picture."""


def write(title: str, pieces: Sequence[Piece], folder: Path, name: str) -> list[Path]:
    """Write ``name.html`` and ``name.md`` (its pictures in ``name/``) to ``folder``; returns their paths."""
    page, text = folder / f"{name}.html", folder / f"{name}.md"
    page.write_text(as_html(title, pieces), encoding="utf-8")
    (folder / name).mkdir(exist_ok=True)
    for piece in pieces:
        if isinstance(piece, Picture):
            (folder / name / piece.file).write_text(piece.svg, encoding="utf-8")
    text.write_text(as_markdown(pieces, name), encoding="utf-8")
    return [page, text]


def as_markdown(pieces: Sequence[Piece], pictures: str = "") -> str:
    """Pictures as links into the folder ``pictures``."""
    lines = []
    for piece in pieces:
        if isinstance(piece, Table):
            rows = [piece.head, ["---"] * len(piece.head), *piece.rows]
            lines.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        elif isinstance(piece, Picture):
            lines.append(f"![{piece.alt}]({pictures}/{piece.file})")
        else:
            lines.append(piece)
    return "\n\n".join(lines) + "\n"


def as_html(title: str, pieces: Sequence[Piece]) -> str:
    """One page that needs nothing else (``page.html.jinja``)."""
    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return page.render(title=title, pieces=pieces) + "\n"


def _words(text: str) -> bool:
    return any(mark.isalpha() for mark in text) and "to" not in text.split()
