"""Writes the tables of all programs' parameters into docs/programs.md, from their declaration: run it after a change.

The tables stand between two marks at the end of the page; the rest of it is left alone. A test compares both.
"""

from __future__ import annotations

import json
from pathlib import Path

from kvorum.programs import REGISTRY
from kvorum.runs.parameters import Parameter
from kvorum.runs.program import Program

PAGE = Path(__file__).parent.parent / "docs" / "programs.md"
BEGIN, END = "<!-- parameters: written by tools/parameter_table.py -->", "<!-- end of parameters -->"


def written(page: str) -> str:
    """The page with today's tables between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}"


def tables() -> str:
    """A table for each program that comes with kvorum, with a heading."""
    ours = [program for program in REGISTRY.values() if "kvorum/programs" in Path(program.source).as_posix()]
    return "\n".join(table(program) for program in ours)


def table(program: Program) -> str:
    """One program's table: name, default, what it may be, and its sentence."""
    lines = [f"\n### {program.name}: parameters\n", "| parameter | default | may be | |", "|---|---|---|---|"]
    for one in program.parameters:
        where = " Not over the network." if one.local else ""
        cells = (f"`{one.name}`", _default(one), one.wanted(), one.help + where)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |")
    return "\n".join(lines)


def _default(one: Parameter) -> str:
    if one.default is None or one.default in ("", ()):
        return ""
    return f"`{json.dumps(one.as_dict()['default'], ensure_ascii=False)}`".replace('"', "" if one.choices else '"')


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
