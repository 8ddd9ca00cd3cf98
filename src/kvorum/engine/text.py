"""Text to the model's ids: plain text, conversations, and what stands around a user's words.

Chat templates are rendered by the tokenizer, that is by transformers. They differ in what they take: contents as text
or as parts, rules of a role of their own or none. What one takes shows in what it renders, for the words that it is
given must stand there; a prompt without them is an error and never given to the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import TypeAlias

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.models.tokenizer import Tokenizer

Messages: TypeAlias = "Sequence[Mapping[str, Json]]"
"""A conversation: each message has a ``role`` and, as text, its ``content``."""

_USER, _ASSISTANT = "<<the user's words>>", "<<the assistant's words>>"
_SWITCHES = ("enable_thinking", "thinking")
"""The variables by which templates are told whether the model thinks before it answers."""
_FLAGS = re.compile("/no_think|/think|/system_override")
"""Words in the rules that some templates take as switches and leave out."""
_WRITTEN_OUT = re.compile("""["']text["']:""")
_DATES = tuple(f"%{flag}{letter}" for flag in ("-", "") for letter in "aAbBcCdDeFfgGhHIjklmMpPrRsSTuUVwWxXyYzZ")
_CLOCK = (
    "{%- macro strftime_now(format) -%}{%- set said = namespace(text=format) -%}"
    "{%- for code, words in moment.items() -%}{%- set said.text = said.text.replace(code, words) -%}{%- endfor -%}"
    "{{ said.text }}{%- endmacro %}\n"
)
"""Put before a template that prints the time, it prints a ``moment`` instead: what each of its codes stands for."""


def needed(tokenizer: Tokenizer | None) -> Tokenizer:
    """The tokenizer. Raises BadRequest where there is none."""
    if tokenizer is None:
        raise BadRequest("This engine has no tokenizer; pass one to Engine(model, tokenizer) to work with text.")
    return tokenizer


def encode(tokenizer: Tokenizer | None, text: str, *, special: bool = False, split_special: bool = False) -> list[int]:
    """Text to ids, without any added token unless ``special``.

    ``split_special``: what is spelled like a special token is plain text, as in words that come from outside.
    """
    call = needed(tokenizer)
    if split_special:
        found = call(text, add_special_tokens=special, split_special_tokens=True)
    else:  # a tokenizer of one's own need not know of it
        found = call(text, add_special_tokens=special)
    return [int(token) for token in found["input_ids"]]


def chat(
    tokenizer: Tokenizer | None, messages: Messages, *, moment: datetime | None = None, **variables: Json
) -> list[int]:
    """A conversation to ids, ending where the assistant's turn begins.

    Uses the tokenizer's chat template; without one the messages are plain paragraphs. The rest: see ``render``.
    """
    if getattr(needed(tokenizer), "chat_template", None):
        return encode(tokenizer, render(tokenizer, messages, moment=moment, **variables))
    return encode(tokenizer, "".join(f"{message['content']}\n\n" for message in messages), special=True)


def turn(
    tokenizer: Tokenizer | None, system: str | None, *, moment: datetime | None = None, **variables: Json
) -> tuple[str, str]:
    """What stands before and behind a user's words in the chat template, up to where the assistant begins.

    ``system``: the rules that the conversation begins with. None: it goes on, behind an assistant's words that lack
    their end mark. The rest: see ``render``.
    """
    if not getattr(tokenizer, "chat_template", None):
        return (f"{system}\n\n" if system else "" if system is not None else "\n\n"), "\n\n"
    before = [("user", "Hi."), ("assistant", _ASSISTANT)] if system is None else [("system", system)] if system else []
    messages = [{"role": role, "content": content} for role, content in [*before, ("user", _USER)]]
    text = render(tokenizer, messages, moment=moment, **variables)
    if system is None:
        _, found, text = text.partition(_ASSISTANT)
        if not found:
            raise BadRequest("The model's chat template leaves out what the assistant said before; take another model.")
    before_words, _, behind = text.rpartition(_USER)
    return before_words, behind


def render(
    tokenizer: Tokenizer | None, messages: Messages, *, moment: datetime | None = None, **variables: Json
) -> str:
    """A conversation in the tokenizer's chat template, up to where the assistant begins.

    A template that has no place for rules gets them before the first words of the user. ``moment``: the time that
    templates print which print one; None: now. ``variables``: what the template may ask for besides, such as
    ``tools``, ``documents``, ``date_string``, ``enable_thinking``.

    Raises:
        BadRequest: the template refuses the messages, in its own words, or leaves some of theirs out.
    """
    template, why, cause = needed(tokenizer), "", None
    arrangements = [messages]
    if any(message["role"] == "system" for message in messages):
        arrangements.append(_rules_before_user(messages))
    for parts in (False, True):
        if parts and not _takes_parts(template, moment, variables):
            break
        for arranged in arrangements:
            try:
                text = _apply(template, arranged, parts, moment, variables)
            except Exception as error:  # whatever the model's own template raises
                said = str(error).removesuffix(".")
                cause, why = error, f"The model's chat template cannot be used: {said}.{_in_a_row(messages)}"
                continue
            left_out = _left_out(text, arranged)
            if left_out is None:
                return text
            why = (
                f"The model's chat template leaves words of the prompt out ({left_out[:60]!r} is not in what it makes "
                "of it): mend the template, or take another model."
            )
    raise BadRequest(why) from cause


def _in_a_row(messages: Messages) -> str:
    """A sentence on the first two messages of one role, which most templates that refuse something refuse."""
    roles = [message["role"] for message in messages]
    twice = next((at for at, (one, other) in enumerate(pairwise(roles), 1) if one == other), None)
    return (
        "" if twice is None else f" Messages {twice} and {twice + 1} are both the {roles[twice]}'s: put them into one."
    )


def prints_the_time(tokenizer: Tokenizer | None) -> bool:
    """Whether the chat template asks for it."""
    return "strftime_now" in str(getattr(tokenizer, "chat_template", None))


def thinking_switches(tokenizer: Tokenizer | None, thinking: bool | None) -> dict[str, bool]:
    """The variables that tell the chat template to let the model think first or not; none for None: its own default.

    Raises:
        BadRequest: the template has no such switch.
    """
    if thinking is None:
        return {}
    on, off = (dict.fromkeys(_SWITCHES, value) for value in (True, False))
    probe = [{"role": "user", "content": _USER}]
    known = getattr(tokenizer, "chat_template", None) is not None
    if not known or render(tokenizer, probe, moment=None, **on) == render(tokenizer, probe, moment=None, **off):
        raise BadRequest("The model's chat template has no switch for thinking; leave `thinking` out.")
    return on if thinking else off


def vocabulary(tokenizer: Tokenizer | None, most: int) -> dict[str, int]:
    """The tokenizer's tokens as it spells them and their ids below ``most``; no special ones."""
    if tokenizer is None:
        return {}
    special = set(tokenizer.all_special_ids)
    return {text: at for text, at in tokenizer.get_vocab().items() if at < most and at not in special}


def _apply(
    tokenizer: Tokenizer, messages: Messages, parts: bool, moment: datetime | None, variables: JsonObject
) -> str:
    """What the template makes of the messages, contents as ``parts`` or as text. Raises whatever it raises."""
    if parts:
        messages = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
    given: dict[str, Json] = dict(variables)
    if moment is not None and prints_the_time(tokenizer):
        given["chat_template"] = _CLOCK + tokenizer.get_chat_template(tools=given.get("tools"))
        given["moment"] = {code: moment.strftime(code) for code in _DATES}
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **given))


def _takes_parts(tokenizer: Tokenizer, moment: datetime | None, variables: JsonObject) -> bool:
    """Whether the template shows a user's words if they come as parts, and only then; parts written out whole do not
    count."""
    probe = [{"role": "user", "content": _USER}]
    for parts in (False, True):
        with suppress(Exception):
            text = _apply(tokenizer, probe, parts, moment, variables)
            if _USER in text and not _WRITTEN_OUT.search(text):
                return parts
    return False


def _rules_before_user(messages: Messages) -> Messages:
    """The same conversation with its rules as the first words of the user."""
    rules = [str(message["content"]) for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if others and others[0]["role"] == "user":
        rules.append(str(others.pop(0)["content"]))
    return [{"role": "user", "content": "\n\n".join(rules)}, *others]


def _left_out(text: str, messages: Messages) -> str | None:
    """The first words, other than the assistant's, that are not in ``text``; None: all are there, in their order.

    Blanks do not count, and words may stand there as in JSON.
    """
    text, start = _without_blanks(text), 0
    for message in messages:
        words, is_rule = message.get("content"), message["role"] == "system"
        if message["role"] == "assistant" or not isinstance(words, str):
            continue
        forms = [words, json.dumps(words, ensure_ascii=False)[1:-1], *([_FLAGS.sub("", words)] if is_rule else [])]
        for form in map(_without_blanks, forms):
            place = text.find(form, 0 if is_rule else start)  # rules stand before the last words of some conversations
            if place >= 0:
                break
        else:
            return words
        start = start if is_rule else place + len(form)
    return None


def _without_blanks(text: str) -> str:
    return "".join(text.split())
