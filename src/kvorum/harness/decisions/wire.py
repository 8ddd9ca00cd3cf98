"""Questions and answers as JSON, in the two shapes that services speak: System One's and that of OpenAI's decisions.

System One maps names to questions: ``{"type": "noul" | "choice" | "score", "instructions": ..., "criteria": ...}``.
OpenAI lists them: ``{"type": "predicate" | "choice" | "score", "name": ..., "instructions": ...}`` with ``choices`` or
``levels``. The two translate field by field. What a run is given, and its trace keeps, is the second with two
additions: ``sees``, and what ``yes`` and ``no`` mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.decisions.answers import Decision
from kvorum.harness.decisions.questions import Choice, Option, Question, Score, YesNo
from kvorum.jsontypes import Json, JsonObject
from kvorum.wording import check_known

TYPES = ("noul", "predicate", "choice", "score")
_KEYS = ("type", "name", "instructions", "criteria", "choices", "levels", "yes", "no", "sees")


def read_questions(given: Json) -> list[Question]:
    """Questions from JSON in either shape; a text is a question to be answered with yes or no.

    Raises:
        BadRequest, UnknownName: one is none; the message names it.
    """
    if isinstance(given, str):
        return [YesNo(given)]
    if isinstance(given, Mapping) and not isinstance(given.get("type"), str):
        return [_question(question, name) for name, question in given.items()]
    if isinstance(given, Mapping):
        return [_question(given, "")]
    if not isinstance(given, Sequence):
        raise BadRequest(f"Questions are a list, or a mapping from names to questions, not {given!r}.")
    return [YesNo(one) if isinstance(one, str) else _question(one, "") for one in given]


def as_json(question: Question) -> JsonObject:
    """The question as ``read_questions`` takes it."""
    found: dict[str, Json] = {"instructions": question.text}
    if question.name:
        found["name"] = question.name
    if question.sees:
        found["sees"] = list(question.sees)
    if isinstance(question, YesNo):
        return {"type": "predicate", **found, **_without_blanks({"yes": question.yes, "no": question.no})}
    if isinstance(question, Score):
        return {"type": "score", **found, "levels": [{"label": level} for level in question.levels]}
    choices = [_without_blanks({"value": one.value, "description": one.description}) for one in question.answers]
    return {"type": "choice", **found, "choices": choices}


def to_system_one(decisions: Iterable[Decision]) -> dict[str, Json]:
    """``answers`` of a System One reply: each by its name. Yes or no has no confidence there."""
    return {decision.name: _system_one(decision) for decision in decisions}


def to_openai(decisions: Iterable[Decision], asked: Sequence[Question]) -> list[Json]:
    """``answers`` of OpenAI's decisions; ``asked``: the questions as they came, whose names may be missing: null."""
    return [_openai(decision, question.name or None) for decision, question in zip(decisions, asked, strict=True)]


def _system_one(decision: Decision) -> JsonObject:
    question = decision.question
    if isinstance(question, YesNo):
        return {"type": "noul", "noul": decision.yes}
    shares = dict(zip(question.labels, decision.probabilities, strict=True))
    if isinstance(question, Score):
        legend = {str(at): level for at, level in enumerate(question.levels)}
        more: dict[str, Json] = {"type": "score", "score": decision.score, "legend": legend}
    else:
        more = {"type": "choice", "choice": decision.label}
    return {**more, "probabilities": shares, "confidence": decision.confidence}


def _openai(decision: Decision, name: str | None) -> JsonObject:
    question = decision.question
    if isinstance(question, YesNo):
        return {"type": "predicate", "name": name, "probability": decision.yes}
    shares: list[Json] = []
    for one, share in zip(question.answers, decision.probabilities, strict=True):
        level: dict[str, Json] = {"label": one.description} if isinstance(question, Score) else {}
        shares.append({"value": one.value, **level, "probability": share})
    said: dict[str, Json] = {"score": decision.score} if isinstance(question, Score) else {"choice": decision.value}
    return {
        "type": question.kind,
        "name": name,
        **said,
        "probabilities": shares,
        "confidence": decision.confidence,
    }


def _without_blanks(fields: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in fields.items() if value != ""}


def _question(given: Json, name: str) -> Question:
    if not isinstance(given, Mapping):
        raise BadRequest(f"The question {name!r} must be an object with a type and instructions, not {given!r}.")
    name = name or str(given.get("name") or "")
    owner = f"The question {name or _words(given.get('instructions'))[:60]!r}"
    for key in given:
        check_known("field", key, _KEYS, owner=owner)
    kind = str(given.get("type"))
    if kind not in TYPES:
        raise UnknownName(f"{owner} has the type {kind!r}; the types are {', '.join(TYPES)}.")
    words, sees, criteria = _words(given.get("instructions")), _names(given.get("sees"), owner), given.get("criteria")
    if kind == "choice":
        return Choice(words, name, sees, options=_options(given.get("choices", criteria), owner))
    if kind == "score":
        return Score(words, name, sees, levels=_levels(given.get("levels", criteria), owner))
    meanings = criteria if isinstance(criteria, Mapping) else {}
    return YesNo(words, name, sees, *(_words(given.get(ours, meanings.get(theirs))) for ours, theirs in _MEANINGS))


_MEANINGS = (("yes", "true"), ("no", "false"))


def _options(given: Json, owner: str) -> list[Option]:
    if isinstance(given, Mapping):
        return [Option(label, _words(meaning)) for label, meaning in given.items()]
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise BadRequest(f"{owner} needs its options: a mapping from options to descriptions, or a list of choices.")
    found = []
    for one in given:
        value = one.get("value") if isinstance(one, Mapping) else one
        if not isinstance(value, str | bool | int | float | None) or (isinstance(one, Mapping) and "value" not in one):
            raise BadRequest(f"{owner} has the option {one!r}; give text, a number, true or false.")
        found.append(Option(value, _words(one.get("description")) if isinstance(one, Mapping) else ""))
    return found


def _levels(given: Json, owner: str) -> list[str]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise BadRequest(f"{owner} needs its levels: a list of texts, from the lowest to the highest.")
    found = []
    for one in given:
        labelled = one if isinstance(one, Mapping) and "label" in one else None
        parts = [one] if labelled is None else [labelled["label"], labelled.get("description")]
        found.append(": ".join(words for part in parts if (words := _words(part))))
    return found


def _names(given: Json, owner: str) -> list[str]:
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise BadRequest(f"{owner}: sees={given!r} must be a list of the names of other questions.")
    return [str(name) for name in given]


def _words(given: Json) -> str:
    """Text as it is, nothing for null, and what else JSON has as JSON."""
    if given is None:
        return ""
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


def state_text(given: Json) -> str:
    """A state as the text that a model reads."""
    return _words(given)
