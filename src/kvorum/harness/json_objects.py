"""JSON objects in what a model wrote, with the places of their values.

More lenient than ``json.loads`` where a model's slip leaves no doubt: a comma before the closing brace, line breaks
inside a string or written out between the fields, text before and after. Nothing here raises for what the text holds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from kvorum.jsontypes import Json

_SPACE = re.compile(r"(?:\s|\\[nrt])*")  # also line breaks that were written as two characters
_decoder = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class ValueAt:
    """A key's value. A string's characters, as they stand in the text, are ``lo`` to ``hi``."""

    value: Json
    lo: int
    hi: int


def json_objects(text: str) -> list[dict[str, ValueAt]]:
    """The outermost objects in ``text`` that can be read, in order. A key that comes twice has its last value."""
    found: list[dict[str, ValueAt]] = []
    at = text.find("{")
    while at >= 0:
        try:
            fields, at = _object(text, at)
            found.append(fields)
        except (ValueError, IndexError, RecursionError):
            at += 1
        at = text.find("{", at)
    return found


def _object(text: str, at: int) -> tuple[dict[str, ValueAt], int]:
    """The object that begins at the brace ``at``, and where it ends."""
    fields: dict[str, ValueAt] = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        if text[at] != '"':
            raise ValueError("a key must be a string")
        key, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] != ":":
            raise ValueError("a colon must follow the key")
        start = _skip(text, at + 1)
        value, at = _decoder.raw_decode(text, start)
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()  # half an escaped pair is not text
            fields[key] = ValueAt(value, start + 1, at - 1)
        else:
            fields[key] = ValueAt(value, start, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
        elif text[at] != "}":
            raise ValueError("a comma or brace must follow the value")
    return fields, at + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
