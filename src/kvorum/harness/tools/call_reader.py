"""What a model writes, taken apart as it comes: words, and calls of tools with their arguments.

A reader never shows half a mark as words, loses no call at the end of a text, and says the same however the text is cut
into pieces. It is more lenient than the grammar: blanks, the order of name and arguments, arguments that are written as
JSON text within JSON, and a missing closing mark do not matter.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from kvorum.harness.tools.call_body import Body, NamedBody, ObjectBody


@dataclass(frozen=True, slots=True)
class Said:
    """Words that are no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegins:
    """Call number ``index`` of the turn, from 0, with an ``id`` of its own, of the tool ``name``."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the JSON text of a call's arguments. All of it together is an object; one without parameters is {}."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnds:
    """A call is over. ``whole``: whether it was written to its end, and not cut off or broken. ``end``: how many
    characters of the turn there were up to here."""

    index: int
    whole: bool
    end: int = field(default=0, compare=False)


Read: TypeAlias = "Said | CallBegins | Arguments | CallEnds"
"""What a reader tells."""


@dataclass(frozen=True, slots=True)
class Style:
    """A form as its reader sees it.

    ``triggers`` begin the calls of a turn; ``bare``: a turn may also begin with the object itself. ``listed``: calls
    stand in a list. ``raw``: the name stands by itself, with ``between`` behind it, and is no part of an object.
    ``joint`` and ``after`` stand behind a call, before the next one or at the end.
    """

    triggers: Sequence[str]
    bare: bool
    listed: bool
    raw: bool
    between: str
    joint: str | None
    after: str


_FENCES = [fence + brace for fence in ("", "```json", "```", "<tools>") for brace in ("", "{")]
"""What stands before a bare call in a turn of a model that was trained on another form; the template of Qwen2.5-Coder
shows its models a call in two pairs of braces."""
_OPENS = re.compile("[{`<]")
_CLOSING = ("}", "```", "</tools>", "</tool_call>")


class CallReader:
    """Takes one turn apart.

    ``ids`` names its calls; None: at random. ``names``: of tools whose calls are taken without a mark, in a fence or
    none, at the beginning of the turn, one behind the other, or, if ``loose``, wherever they stand.
    """

    def __init__(
        self, style: Style, ids: Callable[[], str] | None = None, names: Sequence[str] = (), *, loose: bool = False
    ) -> None:
        self._style, self._ids = style, ids or (lambda: f"call_{secrets.token_hex(12)}")
        fences = _FENCES if names else ("",)
        openings = [f'{{"name":"{name}"' for name in names] or (['{"name":"'] if style.bare else [])
        self._bare = [fence + opening for fence in fences for opening in openings]
        self._loose = loose
        self._held, self._fed = "", 0
        self._state = "text"
        self._said = self._fenced = False
        self._raw = ""
        """What was written since the mark of a call that has not begun yet: words, should none begin."""
        self._body: Body | None = None
        self._begun = False
        self.count = 0
        """How many calls have begun."""
        self.bare = False
        """Whether the calls stand without the form's marks, where its grammar does not hold them."""

    def feed(self, text: str) -> list[Read]:
        """Take in more of the text."""
        self._held, self._fed = self._held + text, self._fed + len(text)
        return self._go_on(False)

    def end(self) -> list[Read]:
        """The text is over: what was held back, and the end of a call that is still open."""
        return self._go_on(True)

    def all(self, text: str) -> list[Read]:
        """A whole text."""
        return [*self.feed(text), *self.end()]

    def _go_on(self, last: bool) -> list[Read]:
        found: list[Read] = []
        steps = {"text": self._text, "open": self._open, "body": self._in_body, "after": self._after}
        while steps[self._state](found, last):
            pass
        return _joined(found)

    def _text(self, found: list[Read], last: bool) -> bool:
        """Tell words up to a mark. Whether there is more to do."""
        held = self._held
        places = [(at, at + len(mark)) for mark in self._style.triggers if (at := held.find(mark)) >= 0]
        bare, waits = self._find_bare()
        if bare is not None and (not places or bare[0] < min(places)[0]):
            places, self.bare = [bare], not self._style.bare
            self._fenced |= bare[1] > bare[0]
        if places:
            at, end = min(places)
            words = held[:at].rstrip()
            self._say(found, words)
            self._raw, self._held = held[len(words) : end], held[end:]
            self._state = "open"
            return True
        ready = len(held) if last else min(self._safe(), len(held[:waits].rstrip()))
        words, self._held = held[:ready], held[ready:]
        if words.strip() or not (self.count and last):  # blanks behind calls are no words
            self._say(found, words)
        return False

    def _find_bare(self) -> tuple[tuple[int, int] | None, int]:
        """Where a call without a mark begins, with its fence, and where its object does; and where one may begin."""
        held = self._held
        if not (self._loose or (not self._said and (self.bare or not self.count))):
            return None, len(held)
        for place in _OPENS.finditer(held) if self._bare else ():
            if not self._loose and held[: place.start()].strip():
                break
            state, at = _begins(held[place.start() :], self._bare)
            if state == "whole":
                return (place.start(), place.start() + at), len(held)
            if state == "part":
                return None, place.start()
        return None, len(held)

    def _safe(self) -> int:
        """How many characters cannot be part of a mark, or blanks before one."""
        held = self._held
        longest = max(map(len, self._style.triggers), default=0)
        for length in range(min(longest, len(held)), 0, -1):
            if any(mark.startswith(held[-length:]) for mark in self._style.triggers):
                return len(held[:-length].rstrip())
        return len(held.rstrip())

    def _say(self, found: list[Read], words: str) -> None:
        if words:
            self._said = True
            found.append(Said(words))

    def _open(self, found: list[Read], last: bool) -> bool:
        """Behind a mark: a call must begin, else the mark was words."""
        blanks = len(self._held) - len(self._held.lstrip(" \t\r\n" + ("[" if not self._style.raw else "")))
        self._raw, self._held = self._raw + self._held[:blanks], self._held[blanks:]
        if not self._held:
            return self._give_up(found) if last else False
        if not self._style.raw and self._held[0] != "{":
            return self._give_up(found)
        self._body = NamedBody(self._style.between) if self._style.raw else ObjectBody()
        self._begun, self._state = False, "body"
        return True

    def _give_up(self, found: list[Read]) -> bool:
        """What was held for a call is words."""
        words, self._raw, self._state = self._raw, "", "text"
        self._say(found, words)
        return bool(self._held)

    def _in_body(self, found: list[Read], last: bool) -> bool:
        """Within a call."""
        body = self._body
        assert body is not None
        taken, self._held = body.take(self._held)
        self._raw += taken
        if not self._begun and body.name:
            self._begun = True
            found.append(CallBegins(self.count, self._ids(), body.name))
            self.count += 1
        if self._begun and (more := body.told()):
            found.append(Arguments(self.count - 1, more))
        if not body.over and not last:
            return False
        if not self._begun:
            return self._give_up(found)
        if body.whole and not body.any:
            found.append(Arguments(self.count - 1, "{}"))
        found.append(CallEnds(self.count - 1, body.whole, self._fed - len(self._held)))
        self._raw, self._body, self._state = "", None, "after"
        return True

    def _after(self, found: list[Read], last: bool) -> bool:
        """Behind a call: what closes it, or what joins it to the next."""
        style, waits = self._style, False
        if style.joint is not None and style.joint.strip():
            state, at = _matches(self._held, style.joint)
            if state == "whole":
                self._raw, self._held, self._state = self._held[:at], self._held[at:], "open"
                return True
            waits |= state == "part"
        for mark in [style.after, f"]{style.after}", *(_CLOSING if self._fenced else ())]:
            state, at = _matches(self._held, mark) if mark.strip() else ("no", 0)
            if state == "whole":
                self._held = self._held[at:]
                if mark != "}":
                    self._state, self._fenced = "text", False
                return True
            waits |= state == "part"
        if (waits or not self._held.strip()) and not last:
            return False
        self._state = "text"
        return True


def _matches(text: str, mark: str) -> tuple[str, int]:
    """Whether ``text`` begins with ``mark`` ("whole", and how long that is), may ("part") or does not ("no").

    Blanks on either side do not count.
    """
    at = 0
    for wanted in "".join(mark.split()):
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return "part", at
        if text[at] != wanted:
            return "no", at
        at += 1
    return "whole", at


def _begins(text: str, openings: Sequence[str]) -> tuple[str, int]:
    """Whether ``text`` begins with one of ``openings`` ("whole", and where its object begins), may, or does not."""
    found = [_matches(text, opening) for opening in openings]
    if any(state == "whole" for state, _ in found):
        return "whole", text.rindex("{", 0, text.index('"'))
    return ("part" if any(state == "part" for state, _ in found) else "no"), 0


def _joined(found: list[Read]) -> list[Read]:
    """Neighbouring words, and neighbouring arguments of one call, as one."""
    told: list[Read] = []
    for one in found:
        before = told[-1] if told else None
        if isinstance(one, Said) and isinstance(before, Said):
            told[-1] = Said(before.text + one.text)
        elif isinstance(one, Arguments) and isinstance(before, Arguments) and before.index == one.index:
            told[-1] = Arguments(one.index, before.text + one.text)
        else:
            told.append(one)
    return told


def calls_in(read: Sequence[Read]) -> list[tuple[str, str, str, bool]]:
    """Of each call in what a reader told: id, name, JSON text of its arguments, and whether it is whole."""
    calls: list[tuple[str, str, str, bool]] = []
    for one in read:
        if isinstance(one, CallBegins):
            calls.append((one.id, one.name, "", False))
        elif isinstance(one, Arguments):
            number, name, text, whole = calls[one.index]
            calls[one.index] = (number, name, text + one.text, whole)
        elif isinstance(one, CallEnds):
            calls[one.index] = (*calls[one.index][:3], one.whole and _is_object(calls[one.index][2]))
    return calls


def _is_object(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        return isinstance(json.loads(text), dict)
    return False
