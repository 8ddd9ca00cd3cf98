"""What one worker of a shown run has written, line by line.

Text of the model is made harmless here: control characters, which could command a terminal, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvorum.jsontypes import Json
from kvorum.wording import harmless

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(slots=True, eq=False)
class TextLine:
    """A line of a worker's text: parts of (text, whether it was given to the worker and is not its own).

    ``first``: it begins a step of thought. ``done``: its step has moved to the shared history.
    """

    first: bool
    done: bool = False
    parts: list[tuple[str, bool]] = field(default_factory=list)
    wrapped: tuple[tuple[int, bool], list[Text]] | None = None
    """How it was drawn last: (width, whether its step was done), and the lines on the screen."""

    @property
    def text(self) -> str:
        """All that the worker has written, in one piece."""
        return "".join(text for text, _ in self.parts)


@dataclass(frozen=True, slots=True)
class Looping:
    """A worker writes the same ``period`` tokens over and over ``since`` that tick; ``ended``: for it."""

    since: int
    period: int
    ended: bool

    @property
    def words(self) -> str:
        """For people."""
        return f"looping since tick {self.since}"


@dataclass(slots=True, eq=False)
class WorkerState:
    """One worker: its lines in order, those of the step that it is writing, and the texts of the tokens that it picked.

    ``name``: as it may be printed. ``seen``: ticks of the run when it last picked a token. ``moved``: how many of its
    steps have moved to the shared history.
    """

    name: str
    index: int
    lines: list[TextLine] = field(default_factory=list)
    step: list[TextLine] = field(default_factory=list)
    picked: list[str] = field(default_factory=list)
    seen: int = 0
    moved: int = 0
    turn: int = 0
    """The line at which it began to answer to what it was told last."""
    looping: Looping | None = None
    """The loop in which it is, or in which its run ended it."""
    asked: bool = False
    """Whether what it was asked is shown, so that its prompt need not be."""
    quoting: bool = False
    """Whether its answer is whole, and what it picks now chooses a quotation, which is told once it is chosen."""

    def write(self, text: str, given: bool) -> None:
        """Put text at the end; empty lines at the beginning of a step are left out, several in a row become one."""
        lines = self.step
        for at, piece in enumerate(harmless(text).split("\n")):
            if at and lines and (lines[-1].text.strip() or len(lines) == 1):
                self._new_line()
            if piece:
                line = lines[-1] if lines else self._new_line()
                line.parts.append((piece, given))
                line.wrapped = None

    def begin_turn(self) -> None:
        """What comes next stands in lines of its own."""
        if self.step and self.step[-1].text:
            self._new_line()
        self.turn = max(0, len(self.lines) - 1)

    def read_message(self, fields: Mapping[str, Json]) -> None:
        """What was written in this turn is a message with these fields, which are shown in its place."""
        for line in self.lines[self.turn :]:
            line.parts, line.wrapped = [], None
        for name, value in fields.items():
            self._new_line()
            self.write(f"{name}: ", True)
            self.write(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), False)
        self.begin_turn()

    def _new_line(self) -> TextLine:
        line = TextLine(first=not self.step)
        self.step.append(line)
        self.lines.append(line)
        return line
