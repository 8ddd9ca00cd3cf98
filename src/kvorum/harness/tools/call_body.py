"""The body of one call as it is written: its name, and its arguments piece by piece.

Either a JSON object with a name and arguments in any order, or a name by itself with the arguments behind it. Nothing
is built but the name; what is no JSON ends the call as broken.
"""

from __future__ import annotations

import json
from typing import Protocol

_ARGUMENTS = ("arguments", "parameters")


class Body(Protocol):
    """How far one call is."""

    name: str
    """The tool's name; "" until it is known."""
    over: bool
    """Whether nothing more belongs to it."""
    whole: bool
    """Whether it came to its own end."""
    any: bool
    """Whether arguments have been told."""

    def take(self, text: str) -> tuple[str, str]:
        """Take in what belongs to it; returns that, and what does not."""
        ...

    def told(self) -> str:
        """What was added to the text of its arguments since it was asked last."""
        ...


class _Value:
    """One JSON value as it is written: where it ends, and its text."""

    def __init__(self) -> None:
        self.text = ""
        self.depth = 0
        self.quoted = self.escaped = False

    def take(self, char: str) -> bool:
        """Take in a character; whether the value is over and the character is none of it (not even its last)."""
        if self.quoted:
            self.text += char
            if self.escaped:
                self.escaped = False
            elif char == "\\":
                self.escaped = True
            elif char == '"':
                self.quoted = False
            return False
        if not self.depth and (char in ",}]" or self.done):
            return True
        if char == '"':
            self.quoted = True
        self.depth += (char in "{[") - (char in "}]")
        self.text += char
        return False

    @property
    def done(self) -> bool:
        """Whether it cannot go on: a string or something in brackets that has been closed."""
        return bool(self.text) and not self.depth and not self.quoted and self.text[-1] in '"}]'


class ObjectBody:
    """``{"name": ..., "arguments": {...}}``, keys in any order; other keys are passed over."""

    def __init__(self) -> None:
        self.name, self.over, self.whole, self.any = "", False, False, False
        self._expect = "open"  # then "key", "colon", "value", "comma"
        self._key, self._value = "", _Value()
        self._given: _Value | None = None
        self._told = 0
        self._closed = False

    def take(self, text: str) -> tuple[str, str]:
        """See ``Body``."""
        for at, char in enumerate(text):
            self._take(char)
            if self.over:
                at += self.whole
                return text[:at], text[at:]
        return text, ""

    def _take(self, char: str) -> None:
        if self._expect == "value":
            if not self._value.text and char.isspace():
                return
            if not self._value.take(char):
                if self._value.done:
                    self._value_ends()
                return
            self._value_ends()
        elif self._expect == "key" and self._value.text:
            self._value.take(char)
            if self._value.done:
                self._key, self._expect = _string(self._value.text), "colon"
            return
        if char.isspace():
            return
        if self._expect == "open" and char == "{":
            self._expect, self._value = "key", _Value()
        elif self._expect == "key" and char == '"':
            self._value.take(char)
        elif self._expect == "colon" and char == ":":
            self._expect, self._value = "value", _Value()
            if self._key in _ARGUMENTS:
                self._given = self._value
        elif self._expect == "comma" and char == ",":
            self._expect, self._value = "key", _Value()
        elif self._expect in ("comma", "key") and char == "}":
            self.over = self.whole = True
        else:
            self.over = True

    def _value_ends(self) -> None:
        self._expect = "comma"
        if self._key == "name" and not self.name:
            self.name = _string(self._value.text)
        if self._value is self._given:
            self._closed = True

    def told(self) -> str:
        """See ``Body``. Arguments that are JSON text within JSON, or none, are told when they are whole."""
        given = self._given
        if given is None or not given.text:
            return ""
        if given.text[0] != "{":
            if not self._closed or self.any:
                return ""
            self.any = True
            text = given.text.strip()
            return _string(text).strip() or "{}" if text.startswith('"') else "{}" if text == "null" else text
        more, self._told = given.text[self._told :], len(given.text)
        self.any |= bool(more)
        return more


class NamedBody:
    """A name, ``between``, and the object of the arguments behind it."""

    def __init__(self, between: str) -> None:
        self.name, self.over, self.whole, self.any = "", False, False, False
        self._between = between.strip()
        self._head = ""
        self._value = _Value()
        self._told = 0

    def take(self, text: str) -> tuple[str, str]:
        """See ``Body``."""
        for at, char in enumerate(text):
            if self.name:
                self._value.take(char)
                if self._value.done:
                    self.over = self.whole = True
                    return text[: at + 1], text[at + 1 :]
            elif char == "{" and self._head.strip():
                self.name = self._head.partition(self._between)[0].strip() if self._between else self._head.strip()
                self._value.take(char)
            else:
                self._head += char
                if len(self._head) > 200 or char == "{":
                    self.over = True
                    return text[: at + 1], text[at + 1 :]
        return text, ""

    def told(self) -> str:
        """See ``Body``."""
        more, self._told = self._value.text[self._told :], len(self._value.text)
        self.any |= bool(more)
        return more


def _string(text: str) -> str:
    """A string of JSON as what it says; what is none is itself."""
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, str) else text
