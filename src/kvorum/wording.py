"""Words for people that every room uses: what an unknown name is answered with, numbers as a person
reads them, and what went wrong in somebody's own code."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from kvorum.errors import UnknownName

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def unknown(kind: str, name: str, known: Iterable[str], *, owner: str = "", also: str = "") -> str:
    """A sentence: "There is no program 'hogwlid'; did you mean hogwild?", or all that there is where nothing is near.

    Args:
        kind: what was asked for, as in "program". owner: who would have it: "The task lists has no option 'x'; ...".
        also: what may be given besides the known names, as in "a folder".
    """
    known = list(known)
    begin = f"{owner} has no {kind}" if owner else f"There is no {kind}"
    begin += f" {name[:80]!r}"
    lower = {one.lower(): one for one in known}
    if near := [lower[one] for one in get_close_matches(name.lower(), lower)]:
        return f"{begin}; did you mean {' or '.join(near)}?"
    if not known:
        return f"{begin}."
    there = "it has" if owner else "there are"
    return f"{begin}; {there}: {', '.join([*known, also] if also else known)}."


def check_known(kind: str, name: str, known: Iterable[str], *, owner: str = "", also: str = "") -> None:
    """Raises UnknownName, in the words of ``unknown``, where ``name`` is not among those known."""
    if name not in known:
        raise UnknownName(unknown(kind, name, known, owner=owner, also=also))


def harmless(text: str) -> str:
    """``text`` without what a terminal would obey, control characters and bidi marks; tabs become spaces."""
    return _CONTROLS.sub("", text.replace("\t", "    "))


def count(number: float) -> str:
    """A whole number with commas between the thousands: 1234 as "1,234"."""
    return f"{number:,.0f}"


def plural(number: int, noun: str, several: str = "") -> str:
    """ "1 worker", "1,200 workers"; ``several`` where more than one are called otherwise than with an s."""
    return f"{count(number)} {noun if number == 1 else several or f'{noun}s'}"


def size(number: float) -> str:
    """Bytes: "870 kB", "12 MB", "1.23 GB"."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return f"{number / 1e6:.0f} MB" if number >= 1e6 else f"{number / 1e3:.0f} kB"


def clock(seconds: float) -> str:
    """Seconds as people read them: "0:07", "12:34", "1:02:03"."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def explain(error: BaseException) -> str:
    """What went wrong, and where in the author's files: a line for each place with its statement, the innermost last.
    Frames of kvorum, of Python's import and of installed packages are left out, unless there are no others."""
    if isinstance(error, SyntaxError):
        return "".join(traceback.format_exception_only(error)).rstrip()
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _foreign(frame.filename)] or frames[-1:]
    lines = [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n    {frame.line}' for frame in own]
    return "\n".join([*lines, "".join(traceback.format_exception_only(error)).rstrip()])


def _foreign(file: str) -> bool:
    ours = str(Path(__file__).parent)
    return file.startswith((ours, "<frozen", sys.base_prefix)) or "site-packages" in file


def brief(words: str, most: int = 300) -> str:
    """A text on one line as people need it to know it again: its beginning, where it is longer than ``most``."""
    line = " ".join(words.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def wrapped(words: str, width: int) -> list[str]:
    """The lines of a text, those that are wider than ``width`` cells broken between words where that is possible."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width)
    parts = [Text(line).wrap(console, width, overflow="fold") if line else [Text()] for line in words.split("\n")]
    return [line.plain.rstrip() for lines in parts for line in lines]
