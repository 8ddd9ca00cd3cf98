"""Random walks through the grammars of random schemas: whatever is written to its end validates.

Each token is drawn among those that the mask allows, as a model that knows nothing would, with some leaning to what
closes a value so that walks end. Judged by ``jsonschema``. Covers types, bounds, lengths, choices, optional keys,
lists, references and alternatives. Not covered: keywords that are refused (``test_grammar_schemas``).
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import toy_engine
from kvorum import Grammar
from kvorum.sampling.sampling import unpacked

WORDS = toy_engine.fake().grammars
MOST = 500
"""Tokens behind which a walk that has not ended is given up."""
CLOSERS = frozenset(token for mark in '"}],' for token in toy_engine.tokenizer()(mark)["input_ids"])


def bounds(kind: str) -> st.SearchStrategy[Any]:
    spans = st.tuples(st.integers(-1000, 1000), st.integers(0, 500))
    return spans.map(lambda span: {"type": kind, "minimum": span[0], "maximum": span[0] + span[1]})


def lengths(span: tuple[int, int]) -> dict[str, Any]:
    return {"type": "string", "minLength": span[0], "maxLength": span[0] + span[1]}


SCALARS = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"type": "number"}]),
    st.sampled_from([{"type": ["string", "null"], "maxLength": 5}, {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}]),
    st.sampled_from([{"type": "string", "format": "date"}, {"$ref": "#/$defs/shared"}]),
    bounds("integer"),
    bounds("number"),
    st.tuples(st.integers(0, 3), st.integers(0, 6)).map(lengths),
    st.lists(st.one_of(st.text(max_size=6), st.integers(), st.none(), st.booleans()), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.text(max_size=8).map(lambda value: {"const": value}),
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text('abcö"\\ 😀', min_size=1, max_size=4)

    @st.composite
    def made(draw: st.DrawFn) -> dict[str, Any]:
        properties = draw(st.dictionaries(names, inner, max_size=4))
        required = [name for name in properties if draw(st.booleans())]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    return made()


def lists(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
        inner,
        st.integers(0, 2),
        st.integers(0, 3),
    )


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        objects(inner), lists(inner), st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some})
    ),
    max_leaves=6,
)
SHARED = {"shared": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}, "required": ["n"]}}


def walk(grammar: Grammar, draw: Random) -> str | None:
    """A text that the grammar allows, token by token; None: it did not end in time."""
    matcher, ids = WORDS.matcher(grammar), list[int]()
    while len(ids) < MOST:
        allowed = [int(token) for token in unpacked(matcher.bits(), WORDS.vocab).nonzero()[0]]
        assert allowed, "nothing may follow, and nothing was whole"
        ends = [token for token in allowed if token in WORDS.ends]
        assert bool(ends) == matcher.may_end
        if ends and (len(allowed) == len(ends) or draw.random() < 0.5):
            return bytes(WORDS.words.decode_bytes(ids)).decode("utf-8")
        closing = [token for token in allowed if token in CLOSERS]
        rest = [token for token in allowed if token not in WORDS.ends]
        token = draw.choice(closing if closing and draw.random() < 0.5 else rest)
        matcher.take([token])
        ids.append(token)
    return None


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS, st.sampled_from([(", ", ": "), (",", ":")]), st.integers(0, 2**32))
def test_whatever_is_written_to_its_end_validates(schema: Any, separators: tuple[str, str], seed: int) -> None:
    whole = {**schema, "$defs": SHARED}
    text = walk(Grammar.json(whole, separators=separators), Random(seed))
    if text is not None:
        jsonschema.validate(json.loads(text), whole, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("seed", range(5))
def test_most_walks_end(seed: int) -> None:
    """So that the test above judges something."""
    schema: Any = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "required": ["a"],
    }
    assert walk(Grammar.json({**schema, "additionalProperties": False}), Random(seed)) is not None
