"""How a model's chat template writes calls of tools, seen by rendering some and looking; never by the model's name.

    <|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n
                          `------- before -----´ `- between --´        `--- after ---´

What stands around the name and the arguments is the form. Covers forms whose arguments are JSON: the tags of Hermes and
Qwen, the bare object of Llama 3, Mistral's lists and names in brackets, DeepSeek's fences. Not covered: arguments as
XML elements or as Python; such templates count as ones that do not know tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kvorum.jsontypes import Json, JsonObject
from kvorum.models.tokenizer import Tokenizer

ID = "\0"
"""Stands in a form where the template writes the id of a call: nine letters or digits."""
_USER, _SECOND, _WORDS, _RESULT = "users words", "second question", "assistants words", "results words"
_NAME, _ABOUT, _KEY = "probe_tool", "what the probe is for", "probe_key"
_IDS = ("call_probe", "callprobe")  # some templates take nine letters and digits alone
_GIVEN = re.compile(r'\{\s*"' + _KEY + r'":\s*"(\d)"\s*\}')
_TOOL: JsonObject = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": _ABOUT,
        "parameters": {"type": "object", "properties": {_KEY: {"type": "string"}}, "required": [_KEY]},
    },
}


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around the names and the arguments of a turn's calls, and what the template wants of a history.

    ``before`` the first name, ``between`` a name and its arguments, ``joint`` between the arguments and the next name
    (None: a turn has one call), ``after`` the last arguments. ``tag`` may stand before all that. ``text_arguments``:
    the template wants arguments as JSON text; ``short_ids``: ids of calls as nine letters and digits.
    """

    before: str
    between: str
    joint: str | None
    after: str
    tag: str = ""
    text_arguments: bool = False
    short_ids: bool = False


def look(tokenizer: Tokenizer | None) -> Around | None:
    """The form of the tokenizer's chat template; None: it has none, does not know tools, or writes them otherwise."""
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        return None
    for name in _IDS:
        for as_text in (False, True):
            found = _around(tokenizer, name, as_text)
            if found is not None:
                return found
    return None


def _around(tokenizer: Tokenizer, name: str, as_text: bool) -> Around | None:
    user: JsonObject = {"role": "user", "content": _USER}
    plain: JsonObject = {"role": "assistant", "content": _WORDS}
    one = [_call(name, "1", as_text)]
    text = _render(tokenizer, [user, _turn(one), _result(name)])
    talk = _render(tokenizer, [user, plain, {"role": "user", "content": _SECOND}])
    last = _render(tokenizer, [user, plain])
    begun = [turn.partition(_WORDS)[0].rstrip() for turn in (talk, last) if _WORDS in turn]
    start = next((len(turn) for turn in begun if text.startswith(turn)), None)
    if start is None or _ABOUT not in text:
        return None
    head, _, rest = text[start:].partition(_NAME)
    given = _GIVEN.search(rest)
    behind = "" if given is None else _up_to_end(rest[given.end() :].partition(_RESULT)[0], talk)
    if given is None or behind is None or not rest:
        return None
    second = f"{name[:-1]}2"
    pair = _render(
        tokenizer, [user, _turn([*one, _call(second, "2", as_text)]), _result(name), _result(second)]
    ).replace(second, name)
    both = list(_GIVEN.finditer(pair))
    joint, found, _ = pair[both[0].end() :].partition(_NAME) if len(both) == 2 else ("", "", "")
    template = str(tokenizer.get_chat_template(tools=[_TOOL]))
    parts = (head.lstrip(), rest[: given.start()], joint, behind)
    before, between, joint, after = (part.replace(name, ID) for part in parts)
    return Around(
        before,
        between,
        joint if found else None,
        after,
        tag="<|python_tag|>" if "<|python_tag|>" in template and before.startswith("{") else "",
        text_arguments=as_text,
        short_ids=name != _IDS[0],
    )


def _up_to_end(text: str, talk: str) -> str | None:
    """``text`` without the end of the turn, as it stands behind plain words in ``talk``; None: it is not there."""
    end = talk.partition(_WORDS)[2].partition(_SECOND)[0]
    for length in range(len(end), min(len(end), 4) - 1, -1):
        at = text.find(end[:length])
        if at >= 0 and length:
            return text[:at]
    return None


def _render(tokenizer: Tokenizer, messages: Sequence[JsonObject]) -> str:
    """What the template makes of them; "" where it refuses."""
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False, tools=[_TOOL]))
    except Exception:  # whatever the model's own template raises
        return ""


def _call(name: str, value: str, as_text: bool) -> JsonObject:
    given: Json = {_KEY: value}
    arguments = json.dumps(given) if as_text else given
    return {"id": name, "type": "function", "function": {"name": _NAME, "arguments": arguments}}


def _turn(calls: Sequence[Json]) -> JsonObject:
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _result(name: str) -> JsonObject:
    return {"role": "tool", "tool_call_id": name, "name": _NAME, "content": _RESULT}
