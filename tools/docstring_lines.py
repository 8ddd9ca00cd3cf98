"""A griffe extension: several arguments or errors on one line of a docstring become lines of their own.

In the source they may share one (``rows: what to append. hidden: also return the hidden states.``), which people read
as well, and lines that go on need no indent; the reference wants each apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import griffe

_SECTION = re.compile(r"^(Args|Raises):$")
_ITEM = {"Args": re.compile(r"\*{0,2}\w+: "), "Raises": re.compile(r"[A-Z][^:]*: ")}
_INDENT = " " * 4


class SplitLines(griffe.Extension):
    """Rewrites the sections Args and Raises before they are parsed."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """A function's or method's docstring."""
        _split(func, [parameter.name for parameter in func.parameters])

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """A class's docstring, which documents its constructor."""
        _split(cls, [parameter.name for parameter in cls.parameters])


def _split(thing: griffe.Object, arguments: Sequence[str]) -> None:
    if thing.docstring is not None:
        thing.docstring.value = split(thing.docstring.value, arguments)


def split(words: str, arguments: Sequence[str]) -> str:
    """The docstring with a line for each of ``arguments`` and each error that its sections explain."""
    names = "|".join(map(re.escape, arguments)) or "(?!)"
    begins = {
        "Args": re.compile(rf"(?<=[.;]) (?=(?:{names}): )"),
        "Raises": re.compile(r"(?<=[.;]) (?=[A-Z]\w+(?:, [A-Z]\w+)*: )"),
    }
    lines: list[str] = []
    section = ""
    for line in words.splitlines():
        if not line.startswith(" ") and line:
            found = _SECTION.match(line)
            section = found[1] if found else ""
        if not section or not line.startswith(_INDENT):
            lines.append(line)
            continue
        first, *more = begins[section].split(line)
        goes_on = not _ITEM[section].match(first.removeprefix(_INDENT)) and first[4] != " "
        lines += [_INDENT * goes_on + first, *(_INDENT + part for part in more)]
    return "\n".join(lines)
