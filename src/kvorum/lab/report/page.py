"""A page of paragraphs, tables and pictures, as one self-contained HTML file and as Markdown."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:78rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:13px;display:block;overflow-x:auto}
th,td{padding:.15rem .42rem;border-bottom:1px solid #e8e8e8;text-align:right;white-space:nowrap}
td:first-child,th:first-child,.t{text-align:left}th{border-bottom:2px solid #888}tr.g td{border-top:2px solid #bbb}
svg{max-width:100%;height:auto}figure{margin:1rem 0}code{background:#f3f3f3;padding:.1rem .3rem}p{max-width:50rem}"""


@dataclass(frozen=True)
class Table:
    """Rows of text under a head. Rows with the same first ``lead`` cells belong together."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    lead: int = 0


@dataclass(frozen=True)
class Picture:
    """An SVG and what it shows."""

    name: str
    svg: str
    alt: str


Piece = str | Table | Picture
"""A paragraph, a heading (beginning with "#"), a table or a picture."""


def write(title: str, pieces: Sequence[Piece], folder: Path, name: str) -> list[Path]:
    """Write ``name.html`` and ``name.md`` (its pictures in ``name/``) to ``folder``; returns their paths."""
    page, text = folder / f"{name}.html", folder / f"{name}.md"
    page.write_text(as_html(title, pieces), encoding="utf-8")
    (folder / name).mkdir(exist_ok=True)
    for piece in pieces:
        if isinstance(piece, Picture):
            (folder / name / f"{piece.name}.svg").write_text(piece.svg, encoding="utf-8")
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
            lines.append(f"![{piece.alt}]({pictures}/{piece.name}.svg)")
        else:
            lines.append(piece)
    return "\n\n".join(lines) + "\n"


def as_html(title: str, pieces: Sequence[Piece]) -> str:
    """One page that needs nothing else."""
    body = []
    for piece in pieces:
        if isinstance(piece, Table):
            body.append(_table(piece))
        elif isinstance(piece, Picture):
            body.append(f'<figure role="img" aria-label="{html.escape(piece.alt)}">{piece.svg}</figure>')
        elif piece.startswith("#"):
            depth = len(piece) - len(piece.lstrip("#"))
            body.append(f"<h{depth}>{html.escape(piece.lstrip('# '))}</h{depth}>")
        else:
            parts = html.escape(piece).split("`")
            body.append(f"<p>{''.join(f'<code>{p}</code>' if at % 2 else p for at, p in enumerate(parts))}</p>")
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title>"
    return f"<!doctype html><html lang=en>{head}<style>{_STYLE}</style>\n" + "\n".join(body) + "\n</html>\n"


def _table(table: Table) -> str:
    """Columns of words stand to the left, of figures to the right. A group of rows begins with a line, and says only
    there what its rows have in common."""
    marks = [" class=t" if any(map(_words, column)) else "" for column in zip(*table.rows, strict=True)]

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{m}>{html.escape(c)}</{tag}>" for c, m in zip(cells, marks, strict=True))

    rows: list[str] = []
    before: list[str] | None = None
    for row in table.rows:
        group = list(row[: table.lead])
        shown = [""] * table.lead if group == before else group
        begins = bool(group) and before is not None and group != before
        rows.append(f"<tr{' class=g' if begins else ''}>{line([*shown, *row[table.lead :]], 'td')}</tr>")
        before = group
    return f"<table><thead><tr>{line(table.head, 'th')}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _words(text: str) -> bool:
    return any(mark.isalpha() for mark in text) and "to" not in text.split()
