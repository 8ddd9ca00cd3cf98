"""What a model writes, taken apart into words and calls: the same in any pieces, nothing lost, no half a mark shown."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from call_templates import TEMPLATES, tokenizer
from kvorum.harness.tools.call_form import CallForm, call_form
from kvorum.harness.tools.call_reader import Arguments, CallBegins, CallEnds, CallReader, Read, Said, calls_in

FORMS = sorted(TEMPLATES)
AWK = {"text": "awk '{print $1"}


@cache
def form_of(name: str) -> CallForm:
    return call_form(tokenizer(name))


def reader(name: str = "hermes") -> CallReader:
    return form_of(name).reader(counting())


def counting() -> Callable[[], str]:
    """Names calls by their number."""
    numbers = itertools.count()
    return lambda: f"id{next(numbers)}"


def joined(read: list[Read]) -> list[Read]:
    """What was told, with neighbouring pieces of the same as one."""
    told: list[Read] = []
    for one in read:
        last = told[-1] if told else None
        if isinstance(one, Said) and isinstance(last, Said):
            told[-1] = Said(last.text + one.text)
        elif isinstance(one, Arguments) and isinstance(last, Arguments):
            told[-1] = Arguments(one.index, last.text + one.text)
        else:
            told.append(one)
    return told


def streamed(taker: CallReader, text: str, sizes: list[int]) -> list[Read]:
    """The text in pieces of these sizes, over and over."""
    told: list[Read] = []
    at = 0
    for size in itertools.cycle(sizes or [1]):
        if at >= len(text):
            break
        told += taker.feed(text[at : at + size])
        at += size
    return [*told, *taker.end()]


def written(name: str, *calls: tuple[str, str]) -> str:
    around = form_of(name).around
    texts = [f"{tool}{around.between}{given}" for tool, given in calls]
    return (around.before + (around.joint or "").join(texts) + around.after).replace("\0", "abc123XYZ")


PARTS = st.sampled_from(
    [
        *(
            "Words. ",
            "\n",
            " ",
            "{",
            "}",
            '"',
            "[",
            "]",
            "\\",
            "<",
            "<tool",
            "<tool_call>",
            "</tool_call>",
            "[TOOL_CALLS]",
        ),
        *("[ARGS]", '{"name": "', "add", '", "arguments": ', '", "parameters": ', '{"a": 1}', "```json\n", "```", ", "),
        *(
            '{"arguments": {"b": "}"}, "name": "add"}',
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>",
            "function",
            "é\U0001f600",
        ),
        *(written(name, ("add", json.dumps(AWK))) for name in FORMS),
    ]
)


@pytest.mark.parametrize("name", FORMS)
@given(st.lists(PARTS, max_size=9).map("".join), st.lists(st.integers(1, 9), max_size=5))
def test_a_text_in_pieces_is_read_as_whole(name: str, text: str, sizes: list[int]) -> None:
    for tools, loose in (((), False), (("add",), False), (("add",), True)):
        one, other = (CallReader(form_of(name).style, counting(), tools, loose=loose) for _ in range(2))
        assert joined(streamed(one, text, sizes)) == joined(other.all(text))


@pytest.mark.parametrize("name", FORMS)
@given(st.text(max_size=60), st.lists(st.integers(1, 9), max_size=5))
def test_words_alone_come_out_as_they_are(name: str, text: str, sizes: list[int]) -> None:
    told = joined(streamed(reader(name), text, sizes))
    assert "".join(one.text for one in told if isinstance(one, Said)) == text


@pytest.mark.parametrize("size", [1, 2, 5, 9, 1000])
@pytest.mark.parametrize("name", FORMS)
def test_calls_in_any_chunks(name: str, size: int) -> None:
    given = ["{}", json.dumps(AWK), '{"a": {"b": [1, "]"]}, "c": "\\"}"}']
    calls = [("now", given[0]), ("find", given[1]), ("add", given[2])][: 1 if name == "llama3" else 3]
    words = [] if name == "llama3" else [Said("I see.")]
    told = joined(streamed(reader(name), ("I see.\n" if words else "") + written(name, *calls), [size]))
    wanted: list[Read] = [*words]
    for number, (tool, text) in enumerate(calls):
        wanted += [CallBegins(number, f"id{number}", tool), Arguments(number, text), CallEnds(number, True)]
    assert told == wanted


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ('<tool_call>{"arguments":{"a":2,"b":5},"name":"add"}</tool_call>', "add", '{"a":2,"b":5}'),
        ('<tool_call>\n{"name": "now"}\n</tool_call>', "now", "{}"),
        ('<tool_call>{"name": "now", "arguments": null}</tool_call>', "now", "{}"),
        ('<tool_call>{"name": "now", "arguments": ""}</tool_call>', "now", "{}"),
        ('<tool_call>{"name":"add","arguments":"{\\"a\\": 1}"}</tool_call>', "add", '{"a": 1}'),
        ('<tool_call>[{"id": 7, "name": "add", "arguments": {"a": 1}}]</tool_call>', "add", '{"a": 1}'),
        ('<tool_call>{"name": "add", "arguments": {"a": 1}}', "add", '{"a": 1}'),
        ('\n <tool_call> {"name" : "add" , "arguments" : {"a": 1} } </tool_call>\n\n', "add", '{"a": 1}'),
    ],
)
def test_what_models_write_that_is_not_quite_the_form(text: str, name: str, arguments: str) -> None:
    told = joined(reader().all(text))
    assert told == [CallBegins(0, "id0", name), Arguments(0, arguments), CallEnds(0, True)]


def test_a_call_that_is_cut_off_or_broken_says_so() -> None:
    assert calls_in(reader().all('<tool_call>{"name": "add", "arguments": {"a": ')) == [("id0", "add", '{"a": ', False)]
    assert calls_in(reader().all('<tool_call>{"name": "add" "arguments"')) == [("id0", "add", "", False)]


@pytest.mark.parametrize(
    "text", ["<tool_call>", "<tool_call> none", '<tool_call>{"nam', '<tool_call>{"a": 1}</tool_call>']
)
def test_a_mark_without_a_call_is_words(text: str) -> None:
    told = joined(reader().all(f"See {text}"))
    assert "".join(one.text for one in told if isinstance(one, Said)) == f"See {text}"
    assert not calls_in(told)


def test_a_bare_call_is_taken_where_tools_are_known() -> None:
    body = '{\n  "name": "add",\n  "arguments": {"a": 1}\n}'
    for text in (body, f"```json\n{body}\n```", f"```\n{body}\n```\n", f"<tools>\n{body}\n</tools>"):
        told = joined(CallReader(form_of("hermes").style, lambda: "id", ["add"]).all(text))
        assert told == [CallBegins(0, "id", "add"), Arguments(0, '{"a": 1}'), CallEnds(0, True)], text
        assert joined(reader().all(text)) == [Said(text)]
    told = joined(
        CallReader(form_of("hermes").style, lambda: "id", ["add"], loose=True).all(f"I add:\n\n```json\n{body}\n```")
    )
    assert told[:2] == [Said("I add:"), CallBegins(0, "id", "add")]
    other = body.replace("add", "Ada")
    assert joined(CallReader(form_of("hermes").style, lambda: "id", ["add"]).all(other)) == [Said(other)]


def test_llama_takes_its_tag() -> None:
    text = '<|python_tag|>{"name": "add", "parameters": {"a": 1}}'
    assert joined(reader("llama3").all(text)) == [
        CallBegins(0, "id0", "add"),
        Arguments(0, '{"a": 1}'),
        CallEnds(0, True),
    ]
