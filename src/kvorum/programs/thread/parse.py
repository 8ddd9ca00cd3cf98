"""A streaming JSON reader: bytes in, what happened out. It never needs the whole document and never raises.

Covers where subtask lists, conclusions, plans and tool calls of a task document begin and end. Does not build values,
and is no validator: the grammar sees to the schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_VALUE, _KEY = ("value", "first"), ("key", "name")
_SPACE, _CHARACTERS, _LITERAL = rb"[ \t\r\n]*", rb'(?:[^"\\\x00-\x1f]|\\["\\/bfnrtu])*', rb"[0-9+\-.eEtrufalsn]"
_WHOLE = re.compile(
    rb'%b(?:(?P<mark>[{}\[\]:,])|(?P<string>"%b")|(?P<literal>%b+)(?!%b|\Z))'
    % (_SPACE, _CHARACTERS, _LITERAL, _LITERAL)
)
"""A mark, a whole string, or a literal behind which something stands."""
_BEGUN = re.compile(rb'%b(?:"(?P<string>%b(?P<escape>\\?))|(?P<literal>%b+))?\Z' % (_SPACE, _CHARACTERS, _LITERAL))
"""The beginning of a string or of a literal, or nothing yet."""


@dataclass(slots=True)
class Frame:
    """An open object or list: what it stands under, and the key that is being filled (objects only)."""

    kind: str  # "{" or "["
    under: str
    start: int  # offset of its first byte
    key: str = ""


@dataclass(frozen=True, slots=True)
class Happened:
    """An event. ``kind`` is "list_open", "list_close" (of ``subtasks``), "conclusion", "plan" (its items are told),
    "call" (a tool's name and parameters are complete) or "done"; ``depth`` the open tasks, the closed one included;
    ``end`` the offset behind it."""

    kind: str
    depth: int
    end: int
    items: tuple[str, ...] = ()


@dataclass(slots=True)
class Reader:
    """The automaton. ``failed`` is set, for good, at the first byte that no JSON document can have there."""

    frames: list[Frame] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    failed: bool = False
    _at: int = 0  # up to here the document is taken apart
    _begun: re.Match[bytes] | None = None  # what stands behind that
    _expect: str = "value"  # "value", "first" (value or "]"), "key", "name" (key or "}"), "colon", "comma" or "end"
    _items: list[str] = field(default_factory=list)
    _tool: str = ""

    def feed(self, more: bytes) -> list[Happened]:
        """Take in what the next token adds."""
        events: list[Happened] = []
        self.data += more
        while not self.failed and (whole := _WHOLE.match(self.data, self._at)):
            self._at = whole.end()
            self._take(whole, events)
        self._begun = _BEGUN.match(self.data, self._at)
        self.failed |= self._begun is None or not self._fits(self._begun)
        return events

    @property
    def done(self) -> bool:
        """Whether the document is whole."""
        return self._expect == "end" and not self.failed

    @property
    def in_string(self) -> bool:
        """Whether a string is open."""
        return self._begun is not None and self._begun["string"] is not None

    @property
    def depth(self) -> int:
        """How many task objects are open."""
        return sum(frame.kind == "{" and frame.under in ("", "subtasks", "reasoning") for frame in self.frames)

    def closing(self) -> bytes:
        """What closes everything but the outermost object, from wherever the document stands."""
        text = b""
        if self._begun is not None and self.in_string:
            text += (b"n" if self._begun["escape"] else b"") + (b'"' if self._expect in _VALUE else b'":null')
        elif self._expect == "colon":
            text += b":null"
        elif self._expect == "value" and self.frames and self.frames[-1].kind == "{":
            text += b"null"
        for frame in reversed(self.frames[1:]):
            text += b"}" if frame.kind == "{" else b"]"
        return text

    @property
    def begun(self) -> bytes:
        """What the open string holds so far, as it is written."""
        return self._begun["string"] if self._begun is not None and self.in_string else b""

    @property
    def uncut(self) -> bool:
        """Whether a bracket that comes now is of a list that is never cut out: the outermost tasks', or a plan's."""
        if not self.frames or self.begun in (b"plan", b"reasoning"):
            return True
        top = self.frames[-1]
        return top.under == "plan" or (top.kind == "{" and top.key in ("plan", "reasoning") and self._expect == "value")

    def text(self, start: int, end: int | None = None) -> str:
        """Bytes ``start`` to ``end`` of the document, as text."""
        return self.data[start:end].decode("utf-8", "replace")

    def _fits(self, found: re.Match[bytes]) -> bool:
        """Whether a string or literal may stand here."""
        if found["string"] is not None:
            return self._expect in _VALUE or self._expect in _KEY
        return found["literal"] is None or (self._expect in _VALUE and bool(self.frames))

    def _take(self, whole: re.Match[bytes], events: list[Happened]) -> None:
        mark, want = whole["mark"], self._expect
        top = self.frames[-1] if self.frames else None
        if mark is None:
            value = (whole["string"] or whole["literal"]).decode("utf-8", "replace")
            self.failed = not self._fits(whole)
            if top is not None and want in _KEY:
                top.key, self._expect = value[1:-1], "colon"
            elif not self.failed:
                self._value_ends(value, events)
        elif mark in (b"{", b"[") and want in _VALUE:
            self._open(mark.decode(), events)
        elif mark == b":" and want == "colon":
            self._expect = "value"
        elif mark == b"," and want == "comma" and top is not None:
            self._expect = "key" if top.kind == "{" else "value"
        elif (mark, top and top.kind) in ((b"}", "{"), (b"]", "[")) and want in ("name", "first", "comma"):
            self._close(events)
        else:
            self.failed = True

    def _open(self, mark: str, events: list[Happened]) -> None:
        parent = self.frames[-1] if self.frames else None
        under = "" if parent is None else parent.key if parent.kind == "{" else parent.under
        self.frames.append(Frame(mark, under, self._at - 1))
        self._expect = "first" if mark == "[" else "name"
        if mark == "[" and under == "plan":
            self._items = []
        if mark == "[" and under == "subtasks":
            events.append(Happened("list_open", self.depth, self._at))

    def _close(self, events: list[Happened]) -> None:
        depth = self.depth
        frame = self.frames.pop()
        if frame.kind == "[" and frame.under == "subtasks":
            events.append(Happened("list_close", depth, self._at))
        elif frame.kind == "[" and frame.under == "plan":
            events.append(Happened("plan", depth, self._at, tuple(self._items)))
        elif frame.kind == "{" and frame.under == "parameters":
            events.append(Happened("call", depth, self._at, (self._tool, self.text(frame.start, self._at))))
        self._value_ends("", events)

    def _value_ends(self, value: str, events: list[Happened]) -> None:
        if not self.frames:
            self._expect = "end"
            events.append(Happened("done", 0, self._at))
            return
        self._expect = "comma"
        top = self.frames[-1]
        if top.kind == "[" and top.under == "plan":
            self._items.append(value)
        elif top.kind == "{" and top.key == "tool_name":
            self._tool = value.strip('"')
        elif top.kind == "{" and top.key == "conclusion" and top.under in ("", "subtasks", "reasoning"):
            events.append(Happened("conclusion", self.depth, self._at))
