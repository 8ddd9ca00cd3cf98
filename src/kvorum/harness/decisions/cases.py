"""Labelled cases: states with questions and the right answers, a line of JSON each, for a calibration.

``{"state": "...", "questions": {...}, "answers": {"name": true}}``; the questions in either shape of ``wire``. An
answer is the option's value, a level's number or its text, or true or false.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from kvorum.errors import BadRequest, KvorumError
from kvorum.harness.decisions.questions import Question, Score, YesNo, named
from kvorum.harness.decisions.wire import read_questions, state_text
from kvorum.jsontypes import Json


@dataclass(frozen=True, slots=True)
class LabelledState:
    """A state, questions about it, and of each the place of the right one among its answers."""

    state: str
    questions: tuple[Question, ...]
    right: tuple[int, ...]


def read_cases(text: str, where: str) -> list[LabelledState]:
    """The cases of a file named ``where``; empty lines are skipped.

    Raises:
        BadRequest: a line is none; the message has its number and what is wrong.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(_case(json.loads(line)))
        except (json.JSONDecodeError, KvorumError) as error:
            raise BadRequest(f"{where}, line {number}: {error}") from error
    if not found:
        raise BadRequest(f"{where} has no cases; each is a line of JSON with state, questions and answers.")
    return found


def _case(given: Json) -> LabelledState:
    if not isinstance(given, Mapping) or not {"state", "questions", "answers"} <= set(given):
        raise BadRequest("a case is an object with state, questions and answers.")
    answers, questions = given["answers"], named(read_questions(given["questions"]))
    if not isinstance(answers, Mapping):
        raise BadRequest("answers must be a mapping from the questions' names to what is right.")
    missing = next((question for question in questions if question.name not in answers), None)
    if missing is not None:
        raise BadRequest(f"{missing} has no answer among {', '.join(map(str, answers))}.")
    right = tuple(place_of(question, answers[question.name]) for question in questions)
    return LabelledState(state_text(given["state"]), tuple(questions), right)


def place_of(question: Question, answer: Json) -> int:
    """Where an answer stands among those of a question: by value and type, else by its words.

    Raises:
        BadRequest: it is none of them.
    """
    for at, option in enumerate(question.answers):
        if option.value == answer and type(option.value) is type(answer):
            return at
    words = str(answer).strip()
    texts = question.levels if isinstance(question, Score) else question.labels
    if isinstance(question, YesNo):
        words = words.capitalize()
    if words in texts:
        return list(texts).index(words)
    raise BadRequest(f"{question} cannot be answered by {answer!r}.")
