"""The official JSON-Schema test suite as grammars: what compiles, what is refused and why, that nothing wrong passes.

``json_schema_suite.json.gz`` holds a line for each schema of drafts 4 to 2020-12 that differs from those before it
(1,000; from the sdist of jsonschema 4.26, whose copy of Julian Berman's suite is under the MIT licence): its name, the
schema, why it is refused ("" where it compiles), and the suite's instances, each with whether it is valid and whether
the grammar takes it. A grammar may take less than is valid, as another order of properties, but not more. Slow: all of
them, and texts of a real model at temperature 1.5 (KVORUM_SCHEMA_DRAWS: how many).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import toy_engine
from grammar_texts import encode
from kvorum import Engine, Grammar, Sampling, View
from kvorum.errors import BadRequest, GrammarError

WORDS = toy_engine.fake().grammars
LINES = gzip.decompress(Path(__file__).with_name("json_schema_suite.json.gz").read_bytes()).decode().splitlines()
CASES: list[Any] = [json.loads(line) for line in LINES]
COMPACT = (",", ":")
DRAFTS = {
    "draft4": jsonschema.Draft4Validator,
    "draft6": jsonschema.Draft6Validator,
    "draft7": jsonschema.Draft7Validator,
    "draft2019-09": jsonschema.Draft201909Validator,
    "draft2020-12": jsonschema.Draft202012Validator,
}


def takes(grammar: Grammar, value: Any) -> bool:
    matcher = WORDS.matcher(grammar)
    try:
        matcher.take(encode(json.dumps(value, separators=COMPACT, ensure_ascii=False)))
    except GrammarError:
        return False
    return matcher.may_end


@pytest.mark.parametrize("step", [25, pytest.param(1, marks=pytest.mark.slow)])
def test_each_schema_is_held_or_refused_with_its_reason(step: int) -> None:
    for name, schema, why, instances in CASES[::step]:
        refused = ""
        try:
            grammar = Grammar.json(schema, separators=COMPACT)
            WORDS.matcher(grammar)
        except BadRequest as error:
            refused = str(error).removeprefix("The grammar cannot be used: ")
        assert refused.split()[:1] == why.split()[:1], name  # which of several names comes first is left to chance
        for value, _, taken in instances:
            assert takes(grammar, value) == taken, (name, value)


def test_no_grammar_takes_what_is_not_valid() -> None:
    """By the list, which the test above holds to the grammars."""
    compiled = [case for case in CASES if not case[2]]
    assert (len(CASES), len(compiled)) == (1000, 494)
    wide = {name for name, _, _, instances in compiled if any(taken and not valid for _, valid, taken in instances)}
    assert wide == set()
    valid = [taken for _, _, _, instances in compiled for _, valid, taken in instances if valid]
    assert sum(valid) / len(valid) > 0.9


@pytest.mark.slow
def test_what_a_model_writes_at_a_high_temperature_is_valid() -> None:
    """Every text that came to its end validates by the schema's draft; every other was cut."""
    count = int(os.environ.get("KVORUM_SCHEMA_DRAWS", "200"))
    engine = Engine.load("smollm2-135m", kv_tokens=8192)
    schemas = [
        (DRAFTS[name.split("/")[0]], schema) for name, schema, why, _ in CASES if not why and schema is not False
    ]
    ids = list(engine.tokenizer("Here is an example as JSON: ").input_ids)

    async def write(draft: Any, schema: Any, seed: int) -> tuple[Any, str, str]:
        sampling = Sampling(temperature=1.5, seed=seed, grammar=Grammar.json(schema))
        tokens = [
            token async for token in engine.decode(View(engine.block()), ids=ids, sampling=sampling, max_tokens=48)
        ]
        return draft(exact(json.dumps(schema))), "".join(token.text for token in tokens), str(tokens[-1].finish)

    async def some(start: int) -> list[tuple[Any, str, str]]:
        numbers = range(start, min(start + 64, count))
        return await asyncio.gather(*(write(*schemas[at * 7 % len(schemas)], at) for at in numbers))

    ended, wrong, beyond = 0, list[str](), list[str]()
    for start in range(0, count, 64):
        for held, text, finish in asyncio.run(some(start)):
            assert finish in ("length", "end", "grammar"), finish
            if finish != "length":
                ended += 1
                try:
                    wrong += [f"{text}: {error}" for error in held.iter_errors(exact(text))]
                except InvalidOperation:  # 1e99999999999999999999, of which no library says what divides it
                    beyond.append(text)
    print(f"{count} texts, {ended} ended, {len(beyond)} with numbers beyond all arithmetic")
    assert not wrong
    assert len(beyond) <= count // 100, beyond
    assert ended > count // 8


def exact(text: str) -> Any:
    """JSON with its numbers as they are written: 1.65 is a multiple of 0.01, of binary fractions it is none."""
    return json.loads(text, parse_float=Decimal)
