"""A streaming JSON reader: bytes in, what happened out. It never needs the whole document and never raises.

Covers where subtask lists, conclusions, plans and tool calls of a task document begin and end. Does not build values,
and is no validator: the grammar sees to the schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_LITERAL = frozenset(b"0123456789+-.eEtrufalsn")
_SPACE = frozenset(b" \t\r\n")
_ESCAPES = frozenset(b'"\\/bfnrtu')


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
    done: bool = False
    in_string: bool = False
    _key: bool = False  # the string is a key
    _escape: bool = False
    _start: int = 0  # of the string or literal
    _literal: bool = False
    _expect: str = "value"  # "value", "first" (value or "]"), "key", "name" (key or "}"), "colon" or "comma"
    _items: list[str] = field(default_factory=list)
    _tool: str = ""

    def feed(self, more: bytes) -> list[Happened]:
        """Take in what the next token adds."""
        events: list[Happened] = []
        for byte in more:
            if not self.failed and not (self.done and byte not in _SPACE):
                self.data.append(byte)
                self._byte(byte, events)
            elif self.done:
                self.failed = True
        return events

    @property
    def depth(self) -> int:
        """How many task objects are open."""
        return sum(frame.kind == "{" and frame.under in ("", "subtasks", "reasoning") for frame in self.frames)

    def closing(self) -> bytes:
        """What closes everything but the outermost object, from wherever the document stands."""
        text = b""
        if self.in_string:
            text += (b"n" if self._escape else b"") + (b'":null' if self._key else b'"')
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
        return bytes(self.data[self._start + 1 :]) if self.in_string else b""

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

    def _byte(self, byte: int, events: list[Happened]) -> None:
        if self.in_string:
            self._in_string(byte, events)
        elif self._literal and byte in _LITERAL:
            return
        else:
            if self._literal:
                self._literal = False
                self._value_ends(events, len(self.data) - 1)
            if byte not in _SPACE:
                self._outside(byte, events)

    def _in_string(self, byte: int, events: list[Happened]) -> None:
        if self._escape:
            self._escape = False
            self.failed = byte not in _ESCAPES
        elif byte == 0x5C:
            self._escape = True
        elif byte < 0x20:
            self.failed = True
        elif byte == 0x22:
            self.in_string = False
            if self._key:
                self.frames[-1].key = self.text(self._start + 1, -1)
                self._expect = "colon"
            else:
                self._value_ends(events, len(self.data))

    def _outside(self, byte: int, events: list[Happened]) -> None:
        mark, want = chr(byte), self._expect
        top = self.frames[-1] if self.frames else None
        if mark == '"' and want in ("value", "first", "key", "name"):
            self.in_string, self._key, self._start = True, want in ("key", "name"), len(self.data) - 1
        elif mark in "{[" and want in ("value", "first"):
            self._open(mark, events)
        elif mark == ":" and want == "colon":
            self._expect = "value"
        elif mark == "," and want == "comma" and top is not None:
            self._expect = "key" if top.kind == "{" else "value"
        elif (mark, top and top.kind) in (("}", "{"), ("]", "[")) and want in ("name", "first", "comma"):
            self._close(events)
        elif byte in _LITERAL and want in ("value", "first") and top is not None:
            self._literal, self._start = True, len(self.data) - 1
        else:
            self.failed = True

    def _open(self, mark: str, events: list[Happened]) -> None:
        parent = self.frames[-1] if self.frames else None
        under = "" if parent is None else parent.key if parent.kind == "{" else parent.under
        self.frames.append(Frame(mark, under, len(self.data) - 1))
        self._expect = "first" if mark == "[" else "name"
        if mark == "[" and under == "plan":
            self._items = []
        if mark == "[" and under == "subtasks":
            events.append(Happened("list_open", self.depth, len(self.data)))

    def _close(self, events: list[Happened]) -> None:
        depth = self.depth
        frame = self.frames.pop()
        if frame.kind == "[" and frame.under == "subtasks":
            events.append(Happened("list_close", depth, len(self.data)))
        elif frame.kind == "[" and frame.under == "plan":
            events.append(Happened("plan", depth, len(self.data), tuple(self._items)))
        elif frame.kind == "{" and frame.under == "parameters":
            events.append(Happened("call", depth, len(self.data), (self._tool, self.text(frame.start))))
        self._value_ends(events, len(self.data))

    def _value_ends(self, events: list[Happened], end: int) -> None:
        if not self.frames:
            self.done = True
            events.append(Happened("done", 0, end))
            return
        self._expect = "comma"
        top, value = self.frames[-1], self.text(self._start, end)
        if top.kind == "[" and top.under == "plan":
            self._items.append(value)
        elif top.kind == "{" and top.key == "tool_name":
            self._tool = value.strip('"')
        elif top.kind == "{" and top.key == "conclusion" and top.under in ("", "subtasks", "reasoning"):
            events.append(Happened("conclusion", self.depth, end))
