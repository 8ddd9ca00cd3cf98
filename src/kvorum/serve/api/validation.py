"""What is wrong with a body, as one sentence, from the list that pydantic makes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic_core import ErrorDetails

_BRANCH = re.compile(r"constrained-\w+|(list|dict|tuple)\[.*\]|int|str|bool|float|function-.*")
"""How pydantic names the kinds that a value may be of, in the place of an error."""
_WORDS = {
    "dictionary or object to extract fields from": "object",
    "a valid dictionary": "a valid object",
    "Extra inputs are not permitted": "There is no such field",
}


def reason(errors: Sequence[ErrorDetails]) -> tuple[str, str | None]:
    """What is wrong with a request and where, as one sentence and a place, from pydantic's list."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"The body is not JSON: {first['ctx']['error']}, at character {first['loc'][-1]}.", None
    if first["type"] == "missing" and first["loc"] == ("body",):
        return "The body is missing: send JSON.", None
    at = _place(first)
    same = [error for error in errors if _place(error)[: len(at)] == at]
    fit = [error for error in same if not error["type"].endswith("_type")] or same  # of the right kind, but not good
    deepest = max((_place(error) for error in fit), key=len)
    words = list(dict.fromkeys(error["msg"] for error in fit if _place(error) == deepest))
    message = ", or ".join([words[0], *(word.removeprefix("Input should be ") for word in words[1:])])
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    place = ".".join(deepest)[:200]
    return (f"{place}: {message}." if place else f"{message}."), place or None


def _place(error: ErrorDetails) -> list[str]:
    parts = [str(part) for part in error["loc"]]
    return [part for part in parts[1:] if not _BRANCH.fullmatch(part)]
