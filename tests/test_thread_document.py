"""thread's document: the reader takes JSON byte by byte, and the grammar holds whoever writes to the schema."""

from __future__ import annotations

import json

import pytest

import toy_engine
from kvorum import Budget, Engine, Sampling
from kvorum.programs.thread.grammar import DocumentGrammar, schema, vocabulary
from kvorum.programs.thread.parse import Reader
from kvorum.programs.thread.thread import thread
from thread_documents import DOCUMENT, notes

PLAIN = '{"reasoning":[{"thought":"t","conclusion":"c"}],"answer":"7"}'


@pytest.fixture
def engine() -> Engine:
    return toy_engine.fake(kv_tokens=4096)


@pytest.mark.parametrize("text", [DOCUMENT, PLAIN, '{"a":[1,-2.5e3,true,null,{}],"b":"\\u00e9\\n"} ', "[]", '"x"'])
def test_the_reader_takes_json_byte_by_byte(text: str) -> None:
    reader, kinds = Reader(), []
    for byte in text.encode():
        kinds += [event.kind for event in reader.feed(bytes([byte]))]
    assert reader.done
    assert not reader.failed
    assert kinds.count("list_close") == kinds.count("list_open") == text.count('"subtasks":[')
    assert kinds.count("conclusion") == text.count('"conclusion":')


@pytest.mark.parametrize(
    "text", ["Sure!", '{"a" 1}', '{"a":1,,', "[1,]}", '{"a":"b\nc"}', '{"a":"\\x"}', "{]", "[}", "{} {"]
)
def test_the_reader_fails_where_json_does(text: str) -> None:
    reader = Reader()
    reader.feed(text.encode())
    assert reader.failed


def test_closing_makes_any_prefix_whole() -> None:
    """What closes a cut document up to its first brace, from every place where it may be cut."""
    for end in range(2, len(DOCUMENT)):
        reader = Reader()
        reader.feed(DOCUMENT[:end].encode())
        if DOCUMENT[end - 1] == ",":
            continue  # a comma is followed by something, whatever closes it
        whole = json.loads(DOCUMENT[:end] + reader.closing().decode() + "}")
        assert set(whole) - {"reasoning"} <= {DOCUMENT[2:end], "answer"[: max(0, end - DOCUMENT.index("answer"))]}


def test_the_grammar_holds_a_random_model_to_the_schema(engine: Engine) -> None:
    """A random model at temperature 1.5 writes a valid document, lists cut at token edges, whatever the merges."""
    for seed in range(3):
        result = engine.run(
            thread,
            "p",
            budget=Budget(ticks=900),
            sampling=Sampling(temperature=1.5),
            seed=seed,
            chars=4,
            width=2,
            levels=2,
            buffer=0,
            mode="gap",
        )
        note = notes(result, "thread")[0]
        assert note["outcome"] == "done"
        document = json.loads(note["document"], strict=False)
        assert list(document) == ["reasoning", "answer"]
        assert all(next(iter(task)) in ("title", "thought") for task in document["reasoning"])


def test_schema_depth_and_fields(engine: Engine) -> None:
    words = vocabulary(engine.grammars)
    rules = schema(1, tools=(), width=2, chars=8, parallel=False)
    for text, fits in (
        (
            '{"reasoning":[{"thought":"a","subtasks":[{"thought":"b","conclusion":"c"}],"conclusion":"d"}],"answer":"e"}',
            True,
        ),
        ('{"reasoning":[{"thought":"a","conclusion":"d"}],"answer":"e"}', True),
        ('{"reasoning":[{"thought":"a","subtasks":[{"thought":"b","subtasks":[', False),
        ('{"reasoning":[{"conclusion":"d"', False),
        ('{"reasoning":[]', False),
        ('{"reasoning":[{"thought":"a much longer thought"', False),
    ):
        grammar = DocumentGrammar(engine.grammars, rules)
        grammar.take(words.encode(text))
        assert grammar.stuck is not fits, text
