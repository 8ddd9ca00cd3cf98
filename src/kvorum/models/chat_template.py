"""Chat templates rendered by jinja2 alone, to the same text as by transformers, whose import takes seconds.

A template comes from a model's file and is not trusted: it runs in jinja2's sandbox, sees plain data only, and keeps
nothing whose name begins with an underscore. What it may use is what transformers offers (`apply_chat_template`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from kvorum.jsontypes import Json

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""What messages call what was thought; templates read one or the other."""


class _Generation(Extension):
    """``{% generation %}`` ... ``{% endgeneration %}`` marks what the model writes, for training; here it is text."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 has it)

    def parse(self, parser: Parser) -> Node:
        """The text between the marks, in a scope of its own."""
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """A template's namespace; names with an underscore in front would reach into Python."""

    def __init__(*args: Json, **attributes: Json) -> None:
        self, rest = args[0], args[1:]
        held: dict[str, Json] = dict(*rest, **attributes)
        for name in held:
            _check_name(name)
        Namespace.__init__(self, held)

    def __setitem__(self, name: str, value: Json) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: Json) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"A chat template may not keep {name!r}: it begins with an underscore.")


class _Dict:
    """``dict(...)`` and ``dict.fromkeys(...)``, and nothing else of the class."""

    def __call__(self, *args: Json, **entries: Json) -> dict[str, Json]:
        return dict(*args, **entries)

    def fromkeys(self, keys: Sequence[str], value: Json = None) -> dict[str, Json]:
        """A dictionary with these keys, all with one value."""
        return dict.fromkeys(keys, value)


def _raise(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(
    value: Json,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter writes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


@lru_cache(64)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now, "dict": _Dict(), "namespace": _Namespace}
    return environment.from_string(template)


def render(template: str, conversation: Sequence[Mapping[str, Json]], **variables: Json) -> str:
    """A conversation in a template. Fields that are None are left out, and what was thought has all of its names.

    ``variables``: what else the template may ask for, of plain JSON; ``tools``, ``documents`` and
    ``add_generation_prompt`` are always defined.

    Raises:
        jinja2.exceptions.TemplateError: the template is none, or refuses the conversation, in its own words.
        ValueError: the conversation is empty.
    """
    if not conversation:
        raise ValueError("The conversation is empty.")
    messages = [_reasoning({key: value for key, value in turn.items() if value is not None}) for turn in conversation]
    given: dict[str, Json] = {"tools": None, "documents": None, "add_generation_prompt": False, **variables}
    return _compiled(template).render(messages=_plain(messages), **{name: _plain(each) for name, each in given.items()})


def _reasoning(message: dict[str, Json]) -> dict[str, Json]:
    thought = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}


def _plain(value: Json) -> Json:
    """A copy of plain JSON types, so that a template neither changes nor reaches what it was given."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float) else f"<{type(value).__name__}>"
