"""Typed questions: yes or no, a choice among options, a score on a scale. Checked as they are made.

A question says what may be answered; how it is put to a model is ``prompts``, how it is read from JSON ``wire``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from kvorum.errors import BadRequest
from kvorum.runs.parameters import is_text
from kvorum.wording import plural

Value: TypeAlias = "str | bool | int | float | None"
"""What an option stands for. Values are told apart with their types: ``True`` is not ``"true"``, and 1 is not 1.0."""
Kind: TypeAlias = Literal["yes_no", "choice", "score"]

MOST_OPTIONS = 255
MOST_LEVELS = 10
"""As in the System One format, whose levels are single digits."""


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that may be answered: its ``value``, and a ``description`` of what it means, where that does not say
    it."""

    value: Value
    description: str = ""

    @property
    def plain(self) -> str:
        """How it reads: text as it is without blanks around it, other values as JSON writes them."""
        return self.value.strip() if isinstance(self.value, str) else json.dumps(self.value)


@dataclass(frozen=True, slots=True)
class Question:
    """What all questions have; ask a ``YesNo``, a ``Choice`` or a ``Score``.

    ``text``: the question. ``name``: what its answer is called by; unnamed ones are called q1, q2 and so on by their
    places. ``sees``: names of other questions, whose answers this one is told. ``kind``: which of the three it is.
    """

    kind: ClassVar[Kind]
    text: str
    name: str = ""
    sees: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise BadRequest(f"The question {self.name or self.text!r} has no text; say what is asked.")
        if isinstance(self.sees, str) or not all(isinstance(name, str) for name in self.sees):
            raise BadRequest(f"{self}: sees={self.sees!r} must be a list of the names of other questions.")
        object.__setattr__(self, "sees", tuple(self.sees))
        for words in (self.text, self.name, *(f"{one.plain}{one.description}" for one in self.answers)):
            if not is_text(words):
                raise BadRequest(f"{self} holds {words[:60]!r}, which cannot be written as UTF-8.")

    def __str__(self) -> str:
        """As errors call it."""
        return f"The question {self.name or self.text[:60]!r}"

    @property
    def answers(self) -> tuple[Option, ...]:
        """What may be answered, in order."""
        raise NotImplementedError

    @property
    def labels(self) -> tuple[str, ...]:
        """What the model would write for each answer: no two are the same."""
        return tuple(answer.plain for answer in self.answers)


@dataclass(frozen=True, slots=True)
class YesNo(Question):
    """Is it so? ``yes`` and ``no`` say, where that helps, what each would mean. The value of the answer is a bool."""

    kind: ClassVar[Kind] = "yes_no"
    """As ``Question`` has it."""
    yes: str = ""
    no: str = ""

    @property
    def answers(self) -> tuple[Option, ...]:
        """Yes, then no."""
        return (Option(True, self.yes), Option(False, self.no))

    @property
    def labels(self) -> tuple[str, ...]:
        """ "Yes" and "No"."""
        return ("Yes", "No")


@dataclass(frozen=True, slots=True)
class Choice(Question):
    """Which of 1 to 255 ``options`` is it? An option is a value, or an ``Option`` with a description.

    Raises:
        BadRequest: there is none, there are too many, one is empty, or two are the same.
    """

    kind: ClassVar[Kind] = "choice"
    """As ``Question`` has it."""
    options: Sequence[Option | Value] = ()

    def __post_init__(self) -> None:
        if isinstance(self.options, str | Mapping) or not isinstance(self.options, Sequence):
            raise BadRequest(f"{_named(self)}: its options must be a list, not {self.options!r}.")
        found = [option if isinstance(option, Option) else Option(option) for option in self.options]
        object.__setattr__(self, "options", tuple(found))
        if not 1 <= len(found) <= MOST_OPTIONS:
            raise BadRequest(f"{_named(self)} has {plural(len(found), 'option')}; give from 1 to {MOST_OPTIONS}.")
        for at, option in enumerate(found, start=1):
            if not isinstance(option.value, str | bool | int | float | None):
                raise BadRequest(
                    f"{_named(self)}: option {at} is {option.value!r}; give text, a number, true or false."
                )
            if not option.plain:
                raise BadRequest(f"{_named(self)}: option {at} is empty; say what it is.")
            if not isinstance(option.description, str):
                raise BadRequest(f"{_named(self)}: the description of option {at} must be text.")
        twice = next((label for label, times in Counter(self.labels).items() if times > 1), None)
        if twice is not None:
            raise BadRequest(f"{_named(self)} has the option {twice} twice; each option is given once.")
        Question.__post_init__(self)

    @property
    def answers(self) -> tuple[Option, ...]:
        """The options."""
        return tuple(option for option in self.options if isinstance(option, Option))

    @property
    def labels(self) -> tuple[str, ...]:
        """Values that read the same, such as ``True`` and ``"true"``, are written as JSON: ``true`` and ``"true"``."""
        plain = [option.plain for option in self.answers]
        times = Counter(plain)
        return tuple(
            json.dumps(option.plain, ensure_ascii=False)
            if times[words] > 1 and isinstance(option.value, str)
            else words
            for option, words in zip(self.answers, plain, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Score(Question):
    """How much, on a scale of 2 to 10 ``levels``, said in words from the lowest to the highest?

    The value of the answer is the number of the likeliest level, from 0; ``Decision.score`` is the expected level.
    """

    kind: ClassVar[Kind] = "score"
    """As ``Question`` has it."""
    levels: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.levels, str) or not isinstance(self.levels, Sequence):
            raise BadRequest(f"{_named(self)}: its levels must be a list of texts, not {self.levels!r}.")
        object.__setattr__(self, "levels", tuple(self.levels))
        if not 2 <= len(self.levels) <= MOST_LEVELS:
            raise BadRequest(f"{_named(self)} has {plural(len(self.levels), 'level')}; give from 2 to {MOST_LEVELS}.")
        for at, level in enumerate(self.levels):
            if not isinstance(level, str) or not level.strip():
                raise BadRequest(f"{_named(self)}: level {at} is empty; say in words what it means.")
        Question.__post_init__(self)

    @property
    def answers(self) -> tuple[Option, ...]:
        """The levels: number and words."""
        return tuple(Option(at, level) for at, level in enumerate(self.levels))


def named(questions: Sequence[Question | str]) -> list[Question]:
    """The questions, each with a name of its own: q1, q2 by their places where they have none; text asks yes or no.

    Raises:
        BadRequest: there are none, two have the same name, one sees a name that is not there or, over others, itself.
    """
    found = [YesNo(question) if isinstance(question, str) else question for question in questions]
    if not found:
        raise BadRequest("There is no question; ask at least one.")
    for at, question in enumerate(found, start=1):
        if not isinstance(question, YesNo | Choice | Score):
            raise BadRequest(f"Question {at} is {question!r}; give a YesNo, a Choice, a Score or a text.")
    taken = Counter(question.name for question in found if question.name)
    if twice := next((name for name, times in taken.items() if times > 1), None):
        raise BadRequest(f"Two questions are named {twice!r}; give each a name of its own.")
    for at, question in enumerate(found):
        if not question.name:
            name = f"q{at + 1}"
            found[at] = replace(question, name=name + "_" * (name in taken))
    names = {question.name for question in found}
    for question in found:
        if missing := next((name for name in question.sees if name not in names), None):
            raise BadRequest(f"{question} sees the answer to {missing!r}, and no question is named so.")
    return found


def stages(questions: Sequence[Question]) -> list[list[Question]]:
    """The questions in groups, each of which sees answers to earlier groups alone; as few groups as there can be.

    Raises:
        BadRequest: some wait for each other.
    """
    left, done, found = list(questions), set[str](), list[list[Question]]()
    while left:
        ready = [question for question in left if done.issuperset(question.sees)]
        if not ready:
            raise BadRequest(f"{left[0]} sees, over others, its own answer; leave one of them out of `sees`.")
        found.append(ready)
        done |= {question.name for question in ready}
        left = [question for question in left if question.name not in done]
    return found


def _named(question: Question) -> str:
    """As ``str`` has it, before its text was looked at."""
    return f"The question {question.name or str(question.text)[:60]!r}"
