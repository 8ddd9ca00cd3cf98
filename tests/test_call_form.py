"""How models are told of tools and write calls: what is found in a chat template, histories, and the grammar of a turn.

Templates are small ones in the forms that are in use, and those of two real models (tokenizers alone). How what is
written is taken apart is in ``test_call_reader``.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Literal

import pytest
from transformers import AutoTokenizer

from call_templates import TEMPLATES, tokenizer
from kvorum import Engine
from kvorum.engine.detokenizer import Detokenizer, decode
from kvorum.engine.grammars import Grammars
from kvorum.errors import BadRequest, GrammarError
from kvorum.harness.tools.call_form import PLAIN, CallForm, call_form
from kvorum.harness.tools.call_reader import CallReader, Said, calls_in
from kvorum.harness.tools.tool import tool, tool_from_schema
from kvorum.jsontypes import Json
from kvorum.models.cache_folder import entry_folder
from kvorum.models.catalogue import CATALOGUE


def add(a: int, b: int) -> int:
    """adds two numbers"""
    return a + b


def find(text: str, kind: Literal["word", "line"] = "word") -> str:
    """finds a text"""
    return f"{kind} {text}"


def now() -> str:
    """says what time it is"""
    return "noon"


TOOLS = [tool(add), tool(find), tool(now)]
FORMS = sorted(TEMPLATES)


@cache
def form_of(name: str) -> CallForm:
    return call_form(tokenizer(name))


def written(form: CallForm, calls: list[tuple[str, Json]]) -> str:
    """Calls as the template's own rendering has them."""
    around = form.around
    texts = [f"{name}{around.between}{json.dumps(given, ensure_ascii=False)}" for name, given in calls]
    return (around.before + (around.joint or "").join(texts) + around.after).replace("\0", "abc123XYZ")


def accepts(form: CallForm, text: str, choice: str = "auto", *, parallel: bool = True, loose: bool = False) -> bool:
    """Whether a turn may be ``text``. Raises GrammarError where it cannot go on."""
    words = form.tokenizer
    assert words is not None
    grammars = Grammars(words, len(words.get_vocab()), frozenset([words.eos_token_id or 0]))
    grammar = form.grammar(TOOLS, choice, parallel=parallel, loose=loose)
    assert grammar is not None
    matcher = grammars.matcher(grammar)
    matcher.take(words(text, add_special_tokens=False)["input_ids"])
    return matcher.may_end


def refused(form: CallForm, text: str, choice: str = "auto", *, parallel: bool = True, loose: bool = False) -> bool:
    """Whether a turn cannot be ``text``, or not end there."""
    try:
        return not accepts(form, text, choice, parallel=parallel, loose=loose)
    except GrammarError:
        return True


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_found_in_the_template(name: str) -> None:
    form = form_of(name)
    assert form.native == (name != "plain")
    assert (form.around == PLAIN) == (name in ("plain", "hermes"))
    assert (form.around.joint is None) == (name == "llama3")
    assert form.around.short_ids == (name == "mistral")
    assert form.around.text_arguments == (name in ("named", "deepseek"))
    assert form.style.raw == (name in ("named", "deepseek"))


def test_a_tokenizer_without_a_template_has_the_plain_form() -> None:
    words = tokenizer("plain")
    words.chat_template = None
    assert not call_form(words).native
    assert not call_form(None).native


@pytest.mark.parametrize("name", FORMS)
def test_the_grammar_takes_what_the_template_writes(name: str) -> None:
    form = form_of(name)
    one = written(form, [("add", {"a": 1, "b": -2})])
    assert accepts(form, one)
    assert accepts(form, one, "required")
    assert accepts(form, one, "add")
    assert accepts(form, "No tool is needed: 3 < 4 {so}.")
    assert accepts(form, written(form, [("now", {})]))
    if name != "llama3":
        assert accepts(form, "Let me see.\n" + one)
        two = written(form, [("add", {"a": 1, "b": 2}), ("find", {"text": 'a "}" b'})])
        assert accepts(form, two)
        assert refused(form, two, parallel=False)
        assert refused(form, two, "add")


@pytest.mark.parametrize("name", FORMS)
def test_the_grammar_refuses_what_is_no_right_call(name: str) -> None:
    form = form_of(name)
    one = written(form, [("add", {"a": 1, "b": 2})])
    assert refused(form, written(form, [("add", {"a": "one", "b": 2})]))
    assert refused(form, written(form, [("add", {"a": 1})]))
    assert refused(form, written(form, [("take", {})]))
    assert refused(form, one[:-3])
    assert refused(form, one + " and so on")
    assert refused(form, "words", "required")
    assert refused(form, one, "find")
    assert refused(form, one, "none")
    assert accepts(form, "words", "none")


@pytest.mark.parametrize("name", FORMS)
def test_a_loose_grammar_holds_a_call_without_its_mark_too(name: str) -> None:
    form = form_of(name)
    one = written(form, [("add", {"a": 1, "b": 2})])
    assert accepts(form, one, loose=True)
    assert accepts(form, 'So: {"name": "Ada"} and no tool.', loose=name != "llama3")
    for bare in ('{"name": "add", "arguments": %s}', 'So:\n```json\n{\n  "name": "add",\n  "arguments": %s\n}'):
        assert accepts(form, bare % '{"a": 1, "b": 2}', loose=True)
        assert refused(form, bare % '{"a": "one", "b": 2}', loose=True)
        assert refused(form, bare % '{"a": 1, "b": 2}' + " and so on", loose=True)


@pytest.mark.parametrize("name", FORMS)
def test_what_the_grammar_forces_is_read_again(name: str) -> None:
    """The marks are special tokens in some vocabularies: those that the form shows are enough for its reader."""
    form = form_of(name)
    words = form.tokenizer
    assert words is not None
    text = written(form, [("find", {"text": "<tool_call> [ARGS] \u00e9", "kind": "line"})])
    shown = Detokenizer(words)
    shown.show = form.shown
    spelled = shown.all(words(text, add_special_tokens=False)["input_ids"])
    assert spelled == text
    (call,) = calls_in(form.reader().all(spelled))
    assert call[1] == "find"
    assert json.loads(call[2]) == {"text": "<tool_call> [ARGS] \u00e9", "kind": "line"}


def history(arguments: Json, content: Json = None, count: int = 1) -> list[dict[str, Json]]:
    calls: list[Json] = [
        {"id": f"call_{n}", "type": "function", "function": {"name": "find", "arguments": arguments}}
        for n in range(count)
    ]
    results: list[dict[str, Json]] = [
        {"role": "tool", "tool_call_id": f"call_{n}", "content": f"result {n}"} for n in range(count)
    ]
    return [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": content, "tool_calls": calls},
        *results,
        {"role": "user", "content": "Thanks. And now?"},
    ]


def prompt(form: CallForm, messages: list[dict[str, Json]]) -> str:
    words = form.tokenizer
    return decode(words, form.conversation(messages, TOOLS).ids(words), special=True)


@pytest.mark.parametrize("name", FORMS)
def test_a_history_of_calls_is_rendered_as_the_template_has_it(name: str) -> None:
    form = form_of(name)
    text = prompt(form, history({"text": "tide"}, count=2))
    assert text.index("adds two numbers") < text.index("Thanks.")
    assert text.count('{"text": "tide"}') == 2
    assert text.index("result 0") < text.index("result 1") < text.index("Thanks.")


@pytest.mark.parametrize("name", FORMS)
def test_arguments_are_taken_as_an_object_or_as_text(name: str) -> None:
    form = form_of(name)
    assert prompt(form, history('{"text": "tide"}')) == prompt(form, history({"text": "tide"}))
    assert prompt(form, history("")) == prompt(form, history(None)) == prompt(form, history({}))


@pytest.mark.parametrize("name", FORMS)
def test_content_that_is_null_empty_or_left_out_is_the_same(name: str) -> None:
    form = form_of(name)
    left_out = history({})
    del left_out[2]["content"]
    assert prompt(form, history({}, None)) == prompt(form, history({}, "")) == prompt(form, left_out)
    parts = history({})
    for message in parts:
        if message.get("content"):
            message["content"] = [{"type": "text", "text": str(message["content"])}]
    assert prompt(form, parts) == prompt(form, history({}))


def test_a_history_that_does_not_fit_is_refused() -> None:
    form = form_of("hermes")
    with pytest.raises(BadRequest, match="call_1"):
        form.conversation([*history({}, count=2)[:4], {"role": "user", "content": "?"}], TOOLS)
    with pytest.raises(BadRequest, match="other"):
        form.conversation([{"role": "tool", "tool_call_id": "other", "content": "x"}], TOOLS)
    with pytest.raises(BadRequest, match="JSON object"):
        form.conversation(history("[1]"), TOOLS)
    with pytest.raises(BadRequest, match="function with a name"):
        form.conversation([{"role": "assistant", "tool_calls": [{"id": "a"}]}], TOOLS)
    with pytest.raises(BadRequest, match="text parts"):
        form.conversation([{"role": "user", "content": [{"type": "image_url"}]}], TOOLS)
    with pytest.raises(BadRequest, match="tool"):
        form.grammar(TOOLS, "ad")
    assert form.grammar([]) is None


def test_a_tool_from_a_schema() -> None:
    made = tool_from_schema("look", "x" * 9000, {"type": "object", "properties": {"a": {"type": "integer"}}})
    assert made.parameters["additionalProperties"] is False
    assert len(made.description) < 4100
    assert tool_from_schema("none").parameters["properties"] == {}
    for name in ("", "a.b", "a" * 65):
        with pytest.raises(BadRequest, match="name"):
            tool_from_schema(name)
    with pytest.raises(BadRequest, match="object"):
        tool_from_schema("a", "", {"type": "string"})
    deep: dict[str, Json] = {}
    for _ in range(100):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(BadRequest, match="depth"):
        tool_from_schema("a", "", deep)


@pytest.mark.parametrize("name", ["smollm2-135m", pytest.param("qwen2.5-coder-1.5b", marks=pytest.mark.slow)])
def test_real_models(name: str) -> None:
    about = entry_folder(CATALOGUE[name]).about
    if not about.is_dir():
        Engine.load(name)
    words: Any = AutoTokenizer.from_pretrained(about)
    form = call_form(words)
    assert form.native == (name != "smollm2-135m")
    calls: list[tuple[str, Json]] = [("find", {"text": "tide", "kind": "line"}), ("now", {})]
    text = "Let me look.\n" + written(form, calls)
    grammar = form.grammar(TOOLS)
    assert grammar is not None
    ends = frozenset([words.eos_token_id or 0])
    matcher = Grammars(words, max(words.get_vocab().values()) + 1, ends).matcher(grammar)
    matcher.take(words(text, add_special_tokens=False)["input_ids"])
    assert matcher.may_end
    assert [call[1] for call in calls_in(form.reader().all(text))] == ["find", "now"]
    rendered = prompt(form, history({"text": "tide"}, count=2))
    assert rendered.count('{"name": "find", "arguments": {"text": "tide"}}') == 2
    assert rendered.count("<tool_response>") == 2 + (not form.native)


def test_a_reader_of_the_plain_form_takes_half_a_mark_at_the_end_as_words() -> None:
    reader: CallReader = call_form(None).reader()
    assert reader.feed("so <tool_c") == [Said("so")]
    assert reader.end() == [Said(" <tool_c")]
