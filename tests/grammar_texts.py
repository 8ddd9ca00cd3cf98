"""Grammars of every kind for tests, what fits them, and how a text is decoded under one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import toy_engine
from kvorum import Engine, Grammar, Sampling, Token, View
from kvorum.jsontypes import Json

END = 265
PERSON: dict[str, Json] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
KINDS = {
    "json": Grammar.json(PERSON),
    "compact": Grammar.json(PERSON, separators=(",", ":")),
    "regex": Grammar.regex("[ab]{4}|x/y"),
    "choice": Grammar.choice(["yes", "yesterday", 'a "quoted" \\ one', "😀"]),
    "lark": Grammar.lark('start: "(" start ")" | /[0-9]{1,3}/'),
    "gbnf": Grammar.gbnf('root ::= "a" [0-9]{1,2} ("," [0-9])? "z"'),
    "words": Grammar.substring("The quick brown fox, it jumps.", before='"', behind='"', least=5, most=12),
}
FITS = {
    "regex": re.compile("[ab]{4}|x/y"),
    "choice": re.compile(r'yes|yesterday|a "quoted" \\ one|😀'),
    "lark": re.compile(r"\(*[0-9]{1,3}\)*"),
    "gbnf": re.compile("a[0-9]{1,2}(,[0-9])?z"),
    "words": re.compile('"[^"]{5,12}"'),
}


def encode(text: str) -> list[int]:
    return [int(token) for token in toy_engine.tokenizer()(text)["input_ids"]]


async def take(engine: Engine, grammar: Grammar | None, *, stream: int = 0, **options: Any) -> list[Token]:
    options = {"max_tokens": 60, "ids": encode("Say: "), **options}
    sampling = Sampling(options.pop("temperature", 1.0), grammar=grammar)
    view = View(engine.block())
    return [token async for token in engine.decode(view, sampling=sampling, stream=stream, **options)]


def text_of(tokens: Sequence[Token]) -> str:
    return "".join(token.text for token in tokens)
