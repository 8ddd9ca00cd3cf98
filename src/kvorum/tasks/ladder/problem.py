"""One problem of the ladder: what was told in earlier sessions, the skills that there are, the question and its answer.

An answer is read leniently, and one that cannot be read is told from one that is wrong: a failure of form, not of the
task. The forms are the typed message that a protocol asks for, and plain words.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvorum.jsontypes import Json
from kvorum.tasks.everyday.kind import object_schema, says
from kvorum.tasks.scoring import Score


@dataclass(frozen=True, slots=True)
class Note:
    """What was told in an earlier session. ``corrects``: the text of the note that it corrects; "": none. ``replaces``:
    whether it takes the place of that note in the memory, or stands beside it."""

    text: str
    corrects: str = ""
    replaces: bool = False

    def as_dict(self) -> dict[str, Json]:
        """For JSON."""
        return {"text": self.text, "corrects": self.corrects, "replaces": self.replaces}


@dataclass(frozen=True, slots=True)
class Procedure:
    """A skill: its name, what it is for, and its text."""

    name: str
    description: str
    body: str

    def as_dict(self) -> dict[str, Json]:
        """For JSON."""
        return {"name": self.name, "description": self.description, "body": self.body}


@dataclass(frozen=True, slots=True)
class Problem:
    """``options``: the words that an answer can be; none where it is a number. ``notes``: what was told, oldest first.
    ``skills``: those that there are; ``needed`` is the one that the question takes, ``other`` another one, as long."""

    question: str
    answer: str
    notes: Sequence[Note]
    skills: Sequence[Procedure]
    needed: str
    other: str
    options: Sequence[str] = ()

    @property
    def message(self) -> Mapping[str, Json]:
        """The typed message that an answer is, as a JSON schema."""
        answer: Mapping[str, Json] = {"enum": list(self.options)} if self.options else {"type": "integer"}
        return object_schema({"answer": answer})

    @property
    def message_words(self) -> str:
        """The same message as it is asked for in words."""
        return f'Answer in this form: {{"answer": {"WORD" if self.options else "NUMBER"}}}'

    def guess(self, draw: random.Random) -> str:
        """An answer of the right form that knows nothing."""
        return draw.choice(list(self.options)) if self.options else str(draw.randint(5, 99))

    def read(self, text: str | None) -> str | None:
        """The answer that a text gives; None where it gives none, or several."""
        return read_answer(text, self.options)

    def score(self, text: str | None) -> Score:
        """1 for the right answer. ``readable`` tells whether there was one at all."""
        found = self.read(text)
        right = found == self.answer
        return Score(float(right), right, readable=found is not None)


def read_answer(text: str | None, options: Sequence[str] = (), field: str = "answer") -> str | None:
    """The answer that a text gives: one of the ``options``, or a number where there are none; what stands in the
    ``field`` of its last object of JSON, or in its last line. None where it gives none, or several."""
    value = _field(text or "", field)
    if value is None:
        lines = [line for line in (text or "").splitlines() if line.strip()]
        value = lines[-1] if lines else ""
    if options:
        said = [word for word in options if says(value, word)]
        return said[0] if len(said) == 1 else None
    numbers = re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3}\b)", "", value))
    return numbers[-1] if numbers else None


def _field(text: str, name: str) -> str | None:
    """What the last object of JSON in a text has in that field."""
    for found in reversed(re.findall(r"\{[^{}]*\}", text)):
        try:
            value = json.loads(found).get(name)
        except ValueError:
            continue
        if isinstance(value, str | int | float):
            return str(value)
    return None
