"""One everyday task: what is asked, what a right answer looks like, and how an answer is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kvorum.jsontypes import Json
from kvorum.tasks.scoring import normalised

Check = Callable[[str], float]
"""What share of the task an answer has right, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Job:
    """A task as the bare model gets it (``prompt``), with its checker and a right answer.

    Where a program of shared cache can do it, the same task in that program's words: ``text`` is what is read, and
    either ``questions`` are asked of it, or the ``schema`` is filled from it, or each of ``choices`` (a question with
    its options) is decided. ``check`` takes their answers in the form of ``answers_of``.
    """

    prompt: str
    check: Check
    solution: str
    text: str = ""
    questions: Sequence[str] = ()
    schema: Mapping[str, Json] = field(default_factory=dict)
    choices: Sequence[tuple[str, Sequence[str]]] = ()


def numbered(lines: Sequence[str]) -> str:
    """The lines as "1) ...", "2) ...": how a job asks several things, and how it wants them answered."""
    return "\n".join(f"{at}) {line}" for at, line in enumerate(lines, 1))


def answers_of(answer: str, count: int) -> list[str]:
    """What an answer says to each of ``count`` things: by their numbers, or by lines where no line has one."""
    found = {int(match[1]): match[2].strip() for match in re.finditer(r"(?m)^\W*q?(\d{1,2})[).:][\s*]*(.*)$", answer)}
    if not found:
        found = dict(enumerate((line.strip() for line in answer.splitlines() if line.strip()), 1))
    return [found.get(at, "") for at in range(1, count + 1)]


def says(answer: str, wanted: str) -> bool:
    """Whether ``wanted`` stands in the answer as words of its own; commas in numbers, case and blanks do not matter."""
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer).casefold()
    return re.search(rf"(?<![\w.]){re.escape(wanted.casefold())}(?!\w|[.,]\d)", plain) is not None


def behind_questions(answer: str, questions: Sequence[str]) -> list[str] | None:
    """What stands behind each of the questions in an answer that repeats them all in order; else None."""
    found, rest = [], answer
    for question in questions:
        before, there, rest = rest.partition(question)
        if not there:
            return None
        found.append(before)
    return [*found[1:], rest]


def each(wanted: Sequence[str], questions: Sequence[str] = ()) -> Check:
    """A checker of several numbered answers: each must say what is wanted there. ``questions``: an answer may repeat
    them, each before what is said to it."""

    def check(answer: str) -> float:
        given = (behind_questions(answer, questions) if questions else None) or answers_of(answer, len(wanted))
        return sum(says(one, right) for one, right in zip(given, wanted, strict=True)) / len(wanted)

    return check


def one(wanted: str) -> Check:
    """A checker of a short answer: its last line that is not empty, of at most twelve words, says what is wanted."""

    def check(answer: str) -> float:
        lines = [line for line in answer.splitlines() if line.strip()]
        return float(bool(lines) and len(lines[-1].split()) <= 12 and says(lines[-1], wanted))

    return check


def lines_are(wanted: Sequence[str]) -> Check:
    """A checker of a list: these lines in this order, whatever marks or numbers stand before them."""

    def check(answer: str) -> float:
        given = [re.sub(r"^(?:[-*•]|\d{1,2}[).])\s*", "", line.strip()) for line in answer.splitlines()]
        return float([line.casefold() for line in given if line] == [line.casefold() for line in wanted])

    return check


def json_of(answer: str) -> Json:
    """The JSON that an answer is, or that stands in its code fence; None where there is none."""
    fenced = re.findall(r"```(?:json)?\s*\n(.*?)```", answer, re.DOTALL)
    for text in [*fenced[::-1], answer]:
        try:
            found: Json = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return found
    return None


def values_are(wanted: Mapping[str, Json]) -> Check:
    """A checker of a JSON object: the share of its keys that have the wanted value, texts compared as answers are."""

    def same(given: Json, right: Json) -> bool:
        if isinstance(right, list):
            return isinstance(given, list) and len(given) == len(right) and all(map(same, given, right))
        if isinstance(right, Mapping):
            return isinstance(given, dict) and all(same(given.get(key), value) for key, value in right.items())
        if right is None or isinstance(right, bool) or given is None or isinstance(given, bool):
            return given is right
        return not isinstance(given, list | dict) and normalised(str(given)) == normalised(str(right))

    def check(answer: str) -> float:
        given = json_of(answer)
        if not isinstance(given, dict):
            return 0.0
        return sum(same(given.get(key), value) for key, value in wanted.items()) / len(wanted)

    return check


def object_schema(properties: Mapping[str, Json]) -> dict[str, Json]:
    """The JSON schema of an object that has all of these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
