"""Which texts a schema's grammar accepts, what is refused by name, and the limits.

P8 to P18 are rows of public bug reports on grammars. Not covered: random schemas (``test_grammar_walks``), measured
times.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

import toy_engine
from grammar_texts import encode
from kvorum import Grammar, Sampling
from kvorum.engine.grammars import Grammars
from kvorum.errors import BadRequest, GrammarError
from kvorum.sampling.grammar_limits import LIMITS

WORDS: Grammars = toy_engine.fake().grammars
COMPACT = (",", ":")
B = {"enum": ["u", "v"]}
A = {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}, "required": ["b"], "additionalProperties": False}
CONSTS = {"type": "object", "properties": {"p": {"const": 1}, "q": {"const": 2}}, "required": ["q"]}
KEYS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
CASES: list[tuple[Any, list[str], list[str]]] = [
    ({**KEYS, "patternProperties": {"^n$": {"type": "integer"}}}, ['{"n":3}'], ['{"n":"x"}', "{ "]),  # P8
    ({"type": "string", "pattern": "[0-9]{2}"}, ['"ab12cd"', '"12"'], ['"ab"', '"1a2"']),  # P9
    (
        {"type": "string", "maxLength": 4},
        ['"a\\nb"', '"a\\"b"', '"\\n\\n\\n\\n"'],
        ['"a\tb"', '"\\n\\n\\n\\n\\n"', '"abcde"'],
    ),  # P11
    (CONSTS, ['{"p":1,"q":2}', '{"q":2}'], ['{"q":2,"p":9}', '{"p":9,"q":2}']),  # P12
    ({"$ref": "#/$defs/A", "$defs": {"A": A, "B": B}}, ['{"b":"u"}'], ['{"b":"w"}']),  # P13
    ({"$ref": "#/$defs/A", "$defs": {"B": B, "A": A}}, ['{"b":"u"}'], ['{"b":"w"}']),  # P13
    (KEYS, ['{"n":3}'], ['{"n":' + " " * 200, '{"n": 3}']),  # P16
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["3", '"x"'], ["true"]),
]


def accepts(grammar: Grammar, text: str) -> bool:
    matcher = WORDS.matcher(grammar)
    try:
        matcher.take(encode(text))
    except GrammarError:
        return False
    return matcher.may_end


@pytest.mark.parametrize(("schema", "right", "wrong"), CASES)
def test_every_keyword_holds(schema: Any, right: list[str], wrong: list[str]) -> None:
    grammar = Grammar.json(schema, separators=COMPACT)
    assert [text for text in right if not accepts(grammar, text)] == []
    assert [text for text in wrong if accepts(grammar, text)] == []


def test_a_pattern_with_an_empty_branch() -> None:
    """P10."""
    assert accepts(Grammar.regex("(|x)y"), "y")
    assert accepts(Grammar.regex("(|x)y"), "xy")


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":"), (" , ", " : ")])
def test_behind_a_key_stands_its_quotation_mark(separators: tuple[str, str]) -> None:
    """P18: an optional list among the properties, blanks around the colon."""
    properties = {"key": {"type": "string"}, "list": {"type": "array", "items": {"type": "integer"}}}
    schema: Any = {"type": "object", "properties": properties, "required": ["key"], "additionalProperties": False}
    grammar = Grammar.json(schema, separators=separators)
    item, key = separators
    begun = f'{{"key"{key}"x"{item}"list'
    assert accepts(grammar, f'{begun}"{key}[1]}}')
    assert not any(accepts(grammar, f'{begun}{more}"{key}[1]}}') for more in ("s", " ", "\\"))
    assert json.loads(f'{begun}"{key}[1]}}')


REFUSED: dict[str, Any] = {
    "oneOf": {"oneOf": [{"type": "integer"}, {"type": "number"}]},  # P15
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "not": {"not": {"type": "string"}},
    "format": {"type": "string", "format": "zzz"},
    "registry": {"$ref": "http://somewhere/else.json"},
    "Unsatisfiable": {"type": "integer", "minimum": 5, "maximum": 3},
    "no text": {"$ref": "#"},
    "Drafts of JSON Schema differ": {"items": {"$id": "http://a/b/", "$ref": "#/$defs/x"}, "$defs": {"x": {}}},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_the_library_cannot_hold_to_is_refused(why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        WORDS.matcher(Grammar.json(REFUSED[why]))


def test_a_reference_beside_an_identity_is_read_as_the_named_draft_reads_it() -> None:
    """Without a name it is refused, for what it refers to is another schema in another draft."""
    defs: Any = {"old": {"$id": "http://a/new/x", "type": "string"}, "new": {"$id": "http://a/x", "type": "number"}}
    schema: Any = {"$id": "http://a/", "definitions": defs, "allOf": [{"$id": "http://a/new/", "$ref": "x"}]}
    with pytest.raises(BadRequest, match="which draft this is"):
        Grammar.json(schema)
    drafts = {"http://json-schema.org/draft-07/schema#": "1", "https://json-schema.org/draft/2020-12/schema": '"a"'}
    for draft, text in drafts.items():
        grammar = Grammar.json({"$schema": draft, **schema})
        assert [other for other in drafts.values() if accepts(grammar, other)] == [text]
    named: Any = {
        "$id": {"type": "string"},
        "$ref": {"const": {"$id": "a", "$ref": "b"}},
    }  # no keywords
    assert accepts(Grammar.json({"properties": named}), '{"$id": "x"}')
    assert accepts(Grammar.json({"$id": "http://a/", "$ref": "#/$defs/x", "$defs": {"x": {"type": "null"}}}), "null")


def test_siblings_of_one_of_are_refused_not_dropped() -> None:
    """P14."""
    branches = [{"properties": {"n": {"type": "integer"}}}, {"properties": {"s": {"type": "string"}}}]
    schema: Any = {"type": "object", "properties": {"op": {"const": "add"}}, "required": ["op"], "oneOf": branches}
    with pytest.raises(BadRequest, match="oneOf"):
        WORDS.matcher(Grammar.json(schema))


def nested(depth: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def two(k: int) -> Any:
    sides = ({f"a{k}": {"type": "integer"}}, {f"b{k}": {"type": "string"}})
    return {"anyOf": [{"type": "object", "properties": side} for side in sides]}


BOMBS: dict[str, Any] = {
    "size": lambda: Grammar.lark("x" * (LIMITS.size + 1)),
    "depth": lambda: Grammar.json(nested(LIMITS.depth + 1)),
    "parts": lambda: Grammar.json({"anyOf": [{}] * (LIMITS.parts + 1)}),
    "options": lambda: Grammar.json({"enum": list(range(LIMITS.options + 1))}),
    "repeats": lambda: Grammar.json({"type": "array", "maxItems": LIMITS.repeats + 1}),
    "repeats (": lambda: Grammar.regex(f"a{{1,{LIMITS.repeats + 1}}}"),
    "too big": lambda: WORDS.matcher(Grammar.json({"allOf": [two(k) for k in range(11)]})),
}


@pytest.mark.parametrize("why", BOMBS)
def test_what_costs_too_much_is_refused_by_the_limit_s_name(why: str) -> None:
    with pytest.raises(BadRequest, match=why.replace("(", r"\(")):
        BOMBS[why]()


LONG = [f"sentence {at * 7919 % 100003} and more words {at}" for at in range(LIMITS.options)]
"""Options that take most of a second to compile."""


def test_a_grammar_that_takes_too_long_is_refused_and_the_next_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    words = toy_engine.fake().grammars
    with monkeypatch.context() as patch:
        patch.setattr("kvorum.engine.grammars.LIMITS", replace(LIMITS, seconds=0.001))
        with pytest.raises(BadRequest, match="limit seconds"):
            words.matcher(Grammar.choice(LONG))
    assert words.matcher(Grammar.choice(LONG[:3])).bits().any()


def test_others_go_on_while_a_grammar_is_compiled() -> None:
    words, turns = toy_engine.fake().grammars, 0

    async def both() -> None:
        nonlocal turns
        compiling = asyncio.ensure_future(words.prepare(Grammar.choice([f"{one}!" for one in LONG])))
        while not compiling.done():
            turns += 1
            await asyncio.sleep(0)
        assert (await compiling).bits().any()

    asyncio.run(both())
    assert turns > 100


def test_a_lexer_that_outgrows_its_states_is_its_row_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the last thirteen letters were an a takes a state for each of their combinations."""
    monkeypatch.setattr("kvorum.engine.grammars.LIMITS", replace(LIMITS, states=300))
    matcher, draw = WORDS.matcher(Grammar.regex("[ab]*a[ab]{12}c")), Random(1)

    def write() -> None:
        for _ in range(3000):
            matcher.bits()
            matcher.take(encode(draw.choice("ab")))

    with pytest.raises(GrammarError, match="too many states"):
        write()


def test_no_grammar_is_no_grammar() -> None:
    with pytest.raises(BadRequest):
        Sampling(grammar="x")  # type: ignore[arg-type]
    for wrong in ([], [""], "yes"):
        with pytest.raises(BadRequest, match="choice"):
            Grammar.choice(wrong)
