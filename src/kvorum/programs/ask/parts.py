"""Texts that are too long for model or cache, cut into parts: between sentences, so that each stands whole in one part.

Only a sentence that is itself too long is cut, anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from kvorum.harness.passages import sentences
from kvorum.harness.shared_text import most_tokens, quoted_ids, turn_ids
from kvorum.runs.run import Run

Part: TypeAlias = Mapping[str, tuple[str, int]]
"""What is read at once: of each document in it, by name, some text and where in the document that begins."""

_SPARE = 64
"""Tokens left free in each part, for headings and for words that are cut otherwise at its borders."""


def whole(texts: Mapping[str, str]) -> Part:
    """Texts that are not cut."""
    return {name: (text, 0) for name, text in texts.items()}


def cut_texts(run: Run, texts: Mapping[str, str], room: int) -> list[Part]:
    """Texts in parts, each of which fits with ``room`` tokens behind it; one part where all of it fits."""
    read = sum(len(quoted_ids(run, text)) for text in texts.values()) + 16 * len(texts)
    spare = room + len(turn_ids(run)[0]) + _SPARE
    most = most_tokens(run.engine, read + spare)[0] - spare
    if most < 1 or read <= most:
        return [whole(texts)]
    parts: list[Part] = []
    for name, text in texts.items():
        parts += [{name: (text[start:end], start)} for start, end in _pieces(run, text, most)]
    return parts


def _pieces(run: Run, text: str, most: int) -> list[tuple[int, int]]:
    """Where to cut one text."""
    found: list[tuple[int, int]] = []
    begin, last, taken = 0, 0, 0
    for start, end in _short(run, text, sentences(text), most):
        count = len(quoted_ids(run, text[last:end]))
        if taken and taken + count > most:
            found.append((begin, last))
            begin, last, taken = start, start, 0
            count = len(quoted_ids(run, text[start:end]))
        taken, last = taken + count, end
    return [*found, (begin, last)]


def _short(run: Run, text: str, spans: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """The same spans, of which those that are too long are halved."""
    found = []
    for start, end in spans:
        if end - start > 1 and len(quoted_ids(run, text[start:end])) > most:
            middle = (start + end) // 2
            found += _short(run, text, [(start, middle), (middle, end)], most)
        else:
            found.append((start, end))
    return found
