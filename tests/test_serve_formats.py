"""Replies that are held to a form: every field that asks for one, in chat and completions, whole and streamed, of one
model and of a team; what is refused and why; thoughts that stand before an answer in a form.

The model is random, so that only the grammar makes its words JSON. Grammars themselves: ``test_grammar_schemas.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import toy_engine
from kvorum.serve.thoughts import Thoughts, thinks_already
from serving import Served, served

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Po", "Inn"]}, "long": {"type": "integer", "minimum": 1, "maximum": 999}},
    "required": ["name", "long"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "river", "schema": SCHEMA, "strict": True}}
CHAT: dict[str, Any] = {
    "model": "toy",
    "messages": [{"role": "user", "content": "A river?"}],
    "max_tokens": 60,
    "temperature": 1.5,
}
TEXT: dict[str, Any] = {"model": "toy", "prompt": "A river:", "max_tokens": 60, "temperature": 1.5}


class River(BaseModel):
    name: str
    long: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(toy_engine.engine(name="toy"), tmp_path_factory.mktemp("store")) as up:
        yield up


def content(server: Served, **more: Any) -> str:
    reply = server.post("/v1/chat/completions", {**CHAT, **more})
    assert reply.status_code == 200, reply.text
    (choice,) = reply.json()["choices"]
    assert choice["finish_reason"] == "stop"
    return str(choice["message"]["content"])


@pytest.mark.forward
def test_a_schema_in_chat(server: Served) -> None:
    for seed in range(4):
        jsonschema.validate(json.loads(content(server, response_format=FORMAT, seed=seed)), SCHEMA)


@pytest.mark.forward
def test_every_choice_of_a_stream_is_one_object(server: Served) -> None:
    whole = server.post("/v1/chat/completions", {**CHAT, "response_format": FORMAT, "n": 3, "seed": 5}).json()
    body = {**CHAT, "response_format": FORMAT, "n": 3, "seed": 5, "stream": True}
    texts, ends = ["", "", ""], ["", "", ""]
    for line in server.post("/v1/chat/completions", body).text.splitlines():
        if line.startswith("data: {"):
            (choice,) = json.loads(line[6:])["choices"]
            texts[choice["index"]] += choice["delta"].get("content") or ""
            ends[choice["index"]] = choice["finish_reason"] or ends[choice["index"]]
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert ends == ["stop"] * 3
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)


@pytest.mark.forward
def test_parse_with_pydantic(server: Served) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        parsed = client.chat.completions.parse(
            model="toy",
            messages=[{"role": "user", "content": "A river?"}],
            response_format=River,
            max_tokens=400,
            logit_bias={"34": 5},  # a quotation mark: random text in a string would go on for ever
        )
    assert isinstance(parsed.choices[0].message.parsed, River)


@pytest.mark.forward
@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, None),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, None),
        ({"response_format": {"type": "regex", "pattern": "[ab]{4}"}}, "[ab]{4}"),
        ({"response_format": {"type": "grammar", "grammar": 'root ::= "x" [0-9]'}}, "x[0-9]"),
        ({"json_schema": SCHEMA}, None),
        ({"grammar": 'root ::= "no" | "yes"'}, "no|yes"),
        ({"guided_json": json.dumps(SCHEMA)}, None),
        ({"guided_regex": "[0-9]{3}"}, "[0-9]{3}"),
        ({"guided_choice": ["left", "right"]}, "left|right"),
        ({"guided_grammar": 'root ::= "z"'}, "z"),
        ({"structured_outputs": {"json": SCHEMA}}, None),
        ({"structured_outputs": {"regex": "k+m"}}, "k+m"),
        ({"structured_outputs": {"choice": ["a", "ab"]}}, "ab?"),
        ({"structured_outputs": {"grammar": 'root ::= "q"'}}, "q"),
    ],
)
def test_every_field_that_asks_for_a_form(server: Served, fields: dict[str, Any], pattern: str | None) -> None:
    reply = server.post("/v1/completions", {**TEXT, **fields}).json()
    texts = [content(server, **fields), reply["choices"][0]["text"]]
    for text in texts:
        if pattern is None:
            jsonschema.validate(json.loads(text), SCHEMA)
        else:
            assert re.fullmatch(pattern, text)


@pytest.mark.forward
def test_what_is_cut_says_so(server: Served) -> None:
    reply = server.post("/v1/chat/completions", {**CHAT, "response_format": FORMAT, "max_tokens": 3}).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    free = server.post("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}, "seed": 1}).json()
    assert free["choices"][0]["message"]["content"].startswith("{")


@pytest.mark.forward
@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"response_format": {"type": "xml"}}, "response_format", "there are: text, json_object"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "needs json_schema"),
        ({"response_format": FORMAT, "grammar": 'root ::= "x"'}, "grammar", "ask for two"),
        ({"guided_json": "{"}, "guided_json", "no JSON"),
        ({"guided_regex": "(?=a)b"}, "guided_regex", ""),
        ({"guided_choice": []}, "guided_choice", "1 to"),
        ({"grammar": "root ::= ("}, "grammar", ""),
        ({"json_schema": {"type": "integer", "multipleOf": 7, "minimum": 8, "maximum": 9}}, "json_schema", ""),
        ({"json_schema": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "json_schema", "oneOf"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag", "not taken"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(
    server: Served, fields: dict[str, Any], param: str, words: str
) -> None:
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", TEXT)):
        reply = server.post(path, {**body, **fields, "stream": True})
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["param"] == param
        assert words in reply.json()["error"]["message"]
    assert content(server, guided_choice=["still here"]) == "still here"


@pytest.mark.forward
def test_a_grammar_that_grows_beyond_its_limits_is_the_requests_fault(server: Served) -> None:
    ambiguous = {"guided_grammar": 'root ::= "a" root | root "b"', "logit_bias": {"64": 20}, "max_tokens": 400}
    reply = server.post("/v1/completions", {**TEXT, **ambiguous})
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error"), reply.text
    assert "any further" in reply.json()["error"]["message"]
    assert content(server, guided_choice=["still here"]) == "still here"


@pytest.mark.forward
def test_a_schema_binds_a_teams_answer_and_not_its_thoughts(server: Served) -> None:
    body = {**CHAT, "model": "toy:hogwild-2", "response_format": FORMAT, "max_tokens": 120, "seed": 3}
    reply = server.post("/v1/chat/completions", body).json()
    message = reply["choices"][0]["message"]
    jsonschema.validate(json.loads(message["content"]), SCHEMA)
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert message["reasoning_content"].strip()
    with pytest.raises(json.JSONDecodeError):
        json.loads(message["reasoning_content"])
    assert reply["usage"]["completion_tokens"] <= 120
    plain = server.post("/v1/completions", {**TEXT, "model": "toy:hogwild-2", "json_schema": SCHEMA}).json()
    jsonschema.validate(json.loads(plain["choices"][0]["text"]), SCHEMA)


PARTS = st.lists(st.sampled_from(["<think>", "</think>", "<", "th", "ink>", "</", "\n", " ", "so", "{}"]), max_size=12)


@given(PARTS, st.booleans(), st.data())
def test_thoughts_do_not_depend_on_how_the_text_is_cut(parts: list[str], begun: bool, data: st.DataObject) -> None:
    text = "".join(parts)
    whole = Thoughts(begun).step(text, last=True)
    at, reader, thoughts, answer = 0, Thoughts(begun), "", ""
    while at < len(text):
        size = data.draw(st.integers(1, 4))
        one, other = reader.step(text[at : at + size])
        thoughts, answer, at = thoughts + one, answer + other, at + size
    one, other = reader.step("", last=True)
    assert (thoughts + one, answer + other) == whole


def test_thoughts() -> None:
    assert thinks_already("<assistant>\n<think>\n")
    assert not thinks_already("<think>\n\n</think>\n\n")
    assert Thoughts(True).step('It is {so}.\n</think>\n\n{"a": 1}', last=True) == ("It is {so}.", '{"a": 1}')
    assert Thoughts(False).step("<think>\nHm.\n</think>\nYes.", last=True) == ("Hm.", "Yes.")
    assert Thoughts(False).step(" A <think> in between", last=True) == ("", " A <think> in between")
