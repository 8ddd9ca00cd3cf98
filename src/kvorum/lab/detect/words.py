"""What detectors read in a text: words, runs of three words, sums and whether they are right, values and statements."""

from __future__ import annotations

import re

from kvorum.lab.measure.worker_text import find_words
from kvorum.tasks.scoring import AnswerPart

SUM = re.compile(r"(-?\d+)\s*([-+*×/])\s*(\d+)\s*=\s*(-?\d+)(?![\d.]*\d)")


def words(text: str) -> list[str]:
    """The words of a text as they are compared."""
    return re.findall(r"\w+", text.lower())


def numbers(text: str) -> set[str]:
    """All whole numbers in a text, as they are written."""
    return set(re.findall(r"\d+", text))


def sums(text: str) -> list[bool]:
    """Whether each sum of two numbers in a text is right."""
    found = []
    for left, sign, right, result in SUM.findall(text):
        a, b, c = int(left), int(right), int(result)
        found.append(c * b == a and b != 0 if sign == "/" else {"+": a + b, "-": a - b}.get(sign, a * b) == c)
    return found


def holds(text: str, value: str) -> bool:
    """Whether a text holds a value as a word or number of its own."""
    return find_words(text, value) is not None


def stated(text: str, part: AnswerPart) -> bool:
    """Whether a text states a part's answer: anywhere if only its holder can know it, else as a result."""
    known = holds(text, part.answer) if part.holder else find_words(text, part.answer, r"(?:=|\bis|:)\s*")
    return bool(known)


def outside_box(text: str) -> str:
    """A text without what its boxes hold."""
    return re.sub(r"\\boxed\s*\{[^}]*\}?", " ", text)
