"""What answers are worth: when two are the same, and which part of a long one answers which part of the problem."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kvorum.jsontypes import JsonObject


@dataclass(frozen=True, slots=True)
class Score:
    """``soft`` from 0 to 1, ``solved`` if nothing is missing, and what each part earned, where there are parts.

    ``readable``: False where a checker that tells the two apart found no answer that could be right or wrong.
    """

    soft: float
    solved: bool
    parts: Mapping[str, float] = field(default_factory=dict, hash=False)
    readable: bool = True


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A part with an answer of its own. ``holder``: the one worker that was told what it takes, if only one was."""

    name: str
    answer: str
    holder: str = ""


def normalised(answer: str) -> str:
    """An answer as it is compared: case, spaces, and marks around numbers do not matter."""
    plain = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", answer)
    plain = re.sub(r"\\[,;!:% ]|[$\s]|(?<=\d),(?=\d{3}\b)", "", plain).rstrip(".").lower()
    try:
        number = float(plain)
    except ValueError:
        return plain
    return repr(number) if number == number else plain


def split(answer: str) -> list[str]:
    """The entries of an answer: at semicolons and line ends if there are any, else at commas."""
    between = r"[;\n]" if re.search(r"[;\n]", answer.strip()) else r","
    return [entry.strip() for entry in re.split(between, answer) if entry.strip()]


def assign(answer: str, names: Sequence[str]) -> dict[str, str]:
    """Which entry answers which part: "a) 7; c = 9" by its label, and if no entry has one, "7; 8; 9" by its place.

    A label is a part's name at the beginning of the entry, in any case, before ":", "=" or ")". The last entry of a
    label counts. Entries behind the last part, or under no known label where others have one, are dropped.
    """
    entries = split(answer)
    known = {name.lower(): name for name in names}
    labels = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    pattern = re.compile(rf"[(\[*\s]*({labels})[*\s]*[:=)\]]+\s*(.*)", re.IGNORECASE | re.DOTALL)
    found = [match for entry in entries if (match := pattern.fullmatch(entry))]
    if found:
        return {known[match[1].lower()]: match[2].strip() for match in found}
    return dict(zip(names, entries, strict=False))


def credit(answer: str | None, parts: Sequence[AnswerPart]) -> Score:
    """The share of parts whose answer is right; each part earns 1 or 0."""
    given = assign(answer or "", [part.name for part in parts])
    right = {part.name: normalised(given.get(part.name, "")) == normalised(part.answer) for part in parts}
    earned = {name: float(is_right) for name, is_right in right.items()}
    return Score(sum(earned.values()) / len(parts), all(earned.values()), earned)


def joined(answers: Mapping[str, str]) -> str:
    """An answer in the form that ``assign`` reads."""
    return "; ".join(f"{name}: {answer}" for name, answer in answers.items())


def json_answer(answer: str | None) -> JsonObject:
    """The JSON object that an answer is, line breaks in its strings allowed; an empty one where it is none."""
    try:
        found = json.loads(answer or "", strict=False)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
