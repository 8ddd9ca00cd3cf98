"""A conversation with calls of tools, as a chat template is given it.

Messages come as clients of OpenAI's interface write them. What templates want differs: arguments as objects or as text,
ids of nine characters, one call a turn. A template that knows no tools gets them as words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from kvorum.engine.text import chat
from kvorum.errors import BadRequest
from kvorum.harness.tools.template_probe import Around
from kvorum.harness.tools.tool import Tool
from kvorum.jsontypes import Json, JsonObject
from kvorum.models.tokenizer import Tokenizer

RULES = (
    "You may call these tools, each with a JSON object of arguments that fits its parameters:\n{tools}\n\n"
    "To call one, write nothing behind it but further calls:\n"
    '<tool_call>\n{{"name": "NAME", "arguments": {{...}}}}\n</tool_call>\n'
    "The results come as <tool_response> ... </tool_response>. Answer in plain words when you need no tool."
)
"""How the plain form explains itself to a model."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template is given: ``messages``, and ``variables`` beside them (``tools`` where it knows them)."""

    messages: Sequence[JsonObject]
    variables: JsonObject

    def ids(self, tokenizer: Tokenizer | None, *, moment: datetime | None = None, **switches: Json) -> list[int]:
        """The conversation as ids, up to where the assistant begins; see ``engine.text.chat``."""
        return chat(tokenizer, self.messages, moment=moment, **{**self.variables, **switches})


@dataclass(frozen=True, slots=True)
class _Call:
    id: str
    name: str
    arguments: JsonObject


def words_of(content: Json) -> str:
    """The text of a message's content: null, a text, or a list of text parts."""
    if isinstance(content, str) or content is None:
        return content or ""
    if isinstance(content, Sequence):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(str(part) for part in parts)
    raise BadRequest("A message's content is a text, a list of text parts, or null.")


def arguments_of(given: Json) -> JsonObject:
    """Arguments that came as an object or as JSON text; an empty text and null are none.

    Raises:
        BadRequest: they are no JSON object.
    """
    if given is None or given == "":
        return {}
    try:
        found: Json = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        raise BadRequest(f"The arguments of a call are a JSON object, not {given!r:.80}.")
    return found


def template_conversation(
    messages: Sequence[Mapping[str, Json]], tools: Sequence[Tool], around: Around, *, whole: bool
) -> Conversation:
    """For a template that knows tools."""
    told: list[JsonObject] = []
    for message, calls in _checked(messages, whole):
        role, content = message["role"], words_of(message.get("content"))
        if calls:
            told += _turns(content, calls, around)
        elif role == "tool":
            name = _short(str(message["tool_call_id"])) if around.short_ids else str(message["tool_call_id"])
            told.append({"role": "tool", "tool_call_id": name, "name": str(message["name"]), "content": content})
        else:
            told.append({"role": role, "content": content})
    arranged = told if around.joint is not None else _one_by_one(told)
    return Conversation(arranged, {"tools": [tool.told for tool in tools]} if tools else {})


def plain_conversation(
    messages: Sequence[Mapping[str, Json]], tools: Sequence[Tool], around: Around, *, whole: bool
) -> Conversation:
    """For a template that knows no tools: rules, calls and results are words."""
    told: list[dict[str, Json]] = []
    for message, calls in _checked(messages, whole):
        role, content = str(message["role"]), words_of(message.get("content"))
        if calls:
            written = [f"{call.name}{around.between}{json.dumps(call.arguments, ensure_ascii=False)}" for call in calls]
            text = around.before + (around.joint or "").join(written) + around.after
            told.append({"role": role, "content": f"{content}\n{text}" if content else text})
            continue
        if role == "tool":
            role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
        if role == "user" and told and told[-1]["role"] == "user" and "tool_response>" in str(told[-1]["content"]):
            told[-1]["content"] = f"{told[-1]['content']}\n{content}"
        else:
            told.append({"role": role, "content": content})
    if tools:
        rules = RULES.format(tools="\n".join(json.dumps(tool.told, ensure_ascii=False) for tool in tools))
        if told and told[0]["role"] == "system":
            told[0]["content"] = f"{told[0]['content']}\n\n{rules}"
        else:
            told.insert(0, {"role": "system", "content": rules})
    return Conversation(told, {})


def _checked(messages: Sequence[Mapping[str, Json]], whole: bool) -> list[tuple[Mapping[str, Json], list[_Call]]]:
    """Each message with its calls; results know the name of their tool.

    Raises:
        BadRequest: a call without its result, or a result without its call.
    """
    found: list[tuple[Mapping[str, Json], list[_Call]]] = []
    waiting: dict[str, str] = {}
    for message in messages:
        calls = _calls(message)
        if message.get("role") == "tool":
            number = str(message.get("tool_call_id") or "")
            if number not in waiting:
                raise BadRequest(f"A tool message is of tool_call_id {number!r}, which no call before it has.")
            message = {**message, "name": waiting.pop(number)}
        elif waiting:
            break
        waiting |= {call.id: call.name for call in calls}
        found.append((message, calls))
    if waiting and (whole or len(found) < len(messages)):
        missing = ", ".join(waiting)
        raise BadRequest(f"There is no tool message for tool_call_id {missing}: each call is followed by its result.")
    return found


def _calls(message: Mapping[str, Json]) -> list[_Call]:
    given = message.get("tool_calls")
    found: list[_Call] = []
    for number, call in enumerate(given if isinstance(given, Sequence) and not isinstance(given, str) else []):
        inner = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise BadRequest(f"Call {number + 1} of a message has no function with a name.")
        name = str(call.get("id") or f"call_{number}")
        found.append(_Call(name, str(inner["name"]), arguments_of(inner.get("arguments"))))
    return found


def _turns(content: str, calls: Sequence[_Call], around: Around) -> list[JsonObject]:
    """The assistant's turn with its calls; one for each where the template takes but one."""
    told: list[Json] = []
    for call in calls:
        arguments: Json = call.arguments
        if around.text_arguments:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
        name = _short(call.id) if around.short_ids else call.id
        told.append({"id": name, "type": "function", "function": {"name": call.name, "arguments": arguments}})
    if around.joint is not None:
        return [{"role": "assistant", "content": content, "tool_calls": told}]
    return [
        {"role": "assistant", "content": "" if number else content, "tool_calls": [call]}
        for number, call in enumerate(told)
    ]


def _one_by_one(messages: Sequence[JsonObject]) -> list[JsonObject]:
    """Each call directly before its own result, for templates that take one call a turn."""
    results = {message["tool_call_id"]: message for message in messages if message["role"] == "tool"}
    told: list[JsonObject] = []
    for message in messages:
        calls = message.get("tool_calls")
        if message["role"] == "tool":
            continue
        told.append(message)
        for call in calls if isinstance(calls, Sequence) else ():
            if isinstance(call, Mapping) and call["id"] in results:
                told.append(results[call["id"]])
    return told


def _short(name: str) -> str:
    """Nine letters and digits for an id; those that are so already stay as they are."""
    return name if len(name) == 9 and name.isascii() and name.isalnum() else sha256(name.encode()).hexdigest()[:9]
