"""What is asked about, and what is asked, out of a request: a conversation as its text, questions as typed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.decisions.questions import Question
from kvorum.harness.decisions.wire import read_questions
from kvorum.jsontypes import Json, JsonObject
from kvorum.serve.api.content_text import content_text
from kvorum.serve.errors import ApiError


def input_text(given: str | Sequence[JsonObject] | None) -> str:
    """The input of a decision as one text: a lone user's words as they are, else line by line who says what.

    Raises:
        ApiError: an item that is none, an image, or a tool's output whose call is not there.
    """
    if given is None or isinstance(given, str):
        return given or ""
    if len(given) == 1 and given[0].get("role") == "user":
        return content_text(given[0].get("content"), "input.0.content")
    calls = {str(item.get("call_id")): item.get("name") for item in given if str(item.get("type")) in _CALLS}
    return "\n\n".join(_item(item, f"input.{at}", calls) for at, item in enumerate(given))


_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}


def _item(item: JsonObject, place: str, calls: Mapping[str, Json]) -> str:
    kind, role = str(item.get("type", "message")), item.get("role")
    if kind == "message" and role in ("user", "developer", "system", "assistant"):
        return f"{str(role).capitalize()}: {content_text(item.get('content'), f'{place}.content')}"
    if kind in _CALLS:
        return f"Assistant calls {item.get('name')}: {item.get(_CALLS[kind])}"
    if kind in ("function_call_output", "custom_tool_call_output"):
        call = str(item.get("call_id"))
        if call not in calls:
            raise ApiError(400, f"{place}: there is no call {call[:80]!r} before this output.", param=place)
        return f"{calls[call]} returns: {content_text(item.get('output'), f'{place}.output')}"
    raise ApiError(
        400, f"{place} is neither a message with a role nor a tool's call or output (type {kind[:40]!r}).",
        param=place,
    )  # fmt: skip


def openai_questions(given: Sequence[JsonObject]) -> list[Question]:
    """The questions of OpenAI's form, whose instructions may be parts. Raises ApiError, which names the question."""
    found: list[Question] = []
    for at, one in enumerate(given):
        words = content_text(one.get("instructions"), f"questions.{at}.instructions")
        found += _read([{**one, "instructions": words}], f"questions.{at}")
    return found


def system_one_questions(given: Mapping[str, JsonObject]) -> list[Question]:
    """The questions of System One's form; one without instructions is asked by its name. Raises ApiError."""
    found: list[Question] = []
    for name, one in given.items():
        found += _read({name: {**one, "instructions": one.get("instructions") or name}}, f"questions.{name}")
    return found


def _read(given: Json, place: str) -> list[Question]:
    try:
        return read_questions(given)
    except (BadRequest, UnknownName) as error:
        raise ApiError(400, str(error), param=place[:200]) from error
