"""Tools in chat completions: calls by their schemas, whole and streamed, choices, histories with results, how replies
end, answers in a form beside tools, teams; what a bare call must be to count as one; ``/tokenize`` and its kin.

The model is random with a template in Qwen's form, so that only grammars make calls. How text is taken apart is in
``test_call_reader.py``, templates of real models in ``test_call_form.py``, real clients in ``clients/run.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
import torch
from openai.lib.streaming.chat import ChatCompletionStreamState

import toy_engine
from call_templates import HERMES
from kvorum import Engine
from kvorum.harness.tools.call_form import call_form
from kvorum.harness.tools.call_reader import Read
from kvorum.harness.tools.tool import tool_from_schema
from kvorum.serve.call_format import written_calls
from kvorum.serve.turn_reader import TurnReader
from serving import Served, served

ADD: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": [1, 2]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "add", "description": "adds", "parameters": ADD, "strict": True}},
    {"type": "function", "function": {"name": "now", "description": "the time", "parameters": {"type": "object"}}},
]
BODY: dict[str, Any] = {
    "model": "toy",
    "messages": [{"role": "user", "content": "Add."}],
    "tools": TOOLS,
    "max_tokens": 300,
    "seed": 4,
}
NAMED = {"type": "function", "function": {"name": "add"}}
END = str(256 + len(toy_engine.MERGES))


def engine() -> Engine:
    tokenizer = toy_engine.tokenizer()
    tokenizer.chat_template = HERMES
    return Engine(toy_engine.model(), tokenizer, kv_tokens=16384, page_size=4, name="toy")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(engine(), tmp_path_factory.mktemp("store")) as up:
        yield up


def choice(server: Served, **more: Any) -> dict[str, Any]:
    reply = server.post("/v1/chat/completions", {**BODY, **more})
    assert reply.status_code == 200, reply.text
    return dict(reply.json()["choices"][0])


def refused(server: Served, **more: Any) -> tuple[str, str]:
    reply = server.post("/v1/chat/completions", {**BODY, **more})
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]["param"], reply.json()["error"]["message"]


def chunks(server: Served, **more: Any) -> list[dict[str, Any]]:
    text = server.post("/v1/chat/completions", {**BODY, **more, "stream": True}).text
    lines = text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


@pytest.mark.parametrize(
    ("asked", "finish"),
    [({"tool_choice": "required", "parallel_tool_calls": False}, "tool_calls"), ({"tool_choice": NAMED}, "stop")],
)
def test_a_call_has_arguments_by_its_schema_streamed_or_not(server: Served, asked: dict[str, Any], finish: str) -> None:
    for seed in range(5):
        whole = choice(server, **asked, seed=seed)
        assert whole["finish_reason"] == finish
        assert whole["message"]["content"] is None
        (call,) = whole["message"]["tool_calls"]
        schemas = {"add": ADD, "now": {"type": "object", "maxProperties": 0}}
        jsonschema.validate(json.loads(call["function"]["arguments"]), schemas[call["function"]["name"]])
        state = ChatCompletionStreamState()
        for chunk in chunks(server, **asked, seed=seed):
            state.handle_chunk(openai.types.chat.ChatCompletionChunk.model_validate(chunk))
        streamed = state.get_final_completion().choices[0]
        assert streamed.finish_reason == finish
        assert streamed.message.tool_calls is not None
        assert [one.function.arguments for one in streamed.message.tool_calls] == [call["function"]["arguments"]]


def test_several_calls_of_a_turn(server: Served) -> None:
    """Each has an index and an id; its first delta has id, type and name, those behind it arguments alone."""
    for seed in range(30):
        found = [chunk["choices"][0] for chunk in chunks(server, tool_choice="required", seed=seed, temperature=1.5)]
        deltas = [call for one in found for call in one["delta"].get("tool_calls", ())]
        first = {call["index"]: call for call in deltas if "id" in call}
        if len(first) > 1 and found[-1]["finish_reason"] == "tool_calls":
            break
    else:
        pytest.fail("no turn had two calls")
    assert len({call["id"] for call in first.values()}) == len(first) == 1 + max(first)
    for index, call in first.items():
        assert call["type"] == "function"
        assert call["function"]["name"] in ("add", "now")
        rest = [other for other in deltas if other["index"] == index and other is not call]
        assert all(set(other) == {"index", "function"} and set(other["function"]) == {"arguments"} for other in rest)
        json.loads("".join(other["function"]["arguments"] for other in rest))
    assert all(one["delta"].get("content") is None for one in found)
    assert [one["finish_reason"] for one in found[:-1]] == [None] * (len(found) - 1)


def test_no_parameters_are_an_empty_object(server: Served) -> None:
    now = {"type": "function", "function": {"name": "now"}}
    (call,) = choice(server, tool_choice=now)["message"]["tool_calls"]
    assert call["function"] == {"name": "now", "arguments": "{}"}
    state = [one["choices"][0]["delta"].get("tool_calls", [{}])[0] for one in chunks(server, tool_choice=now)]
    assert "".join(one.get("function", {}).get("arguments", "") for one in state) == "{}"


def test_what_is_cut_is_no_call(server: Served) -> None:
    cut = choice(server, tool_choice=NAMED, max_tokens=40)
    assert cut["finish_reason"] == "length"
    assert "tool_calls" not in cut["message"]


def test_words_without_a_call(server: Served) -> None:
    for asked in ("auto", "none"):
        found = choice(server, tool_choice=asked, max_tokens=12)
        assert (found["finish_reason"], found["message"].get("tool_calls")) == ("length", None)
        assert isinstance(found["message"]["content"], str)


def test_an_answer_in_a_form_beside_tools(server: Served) -> None:
    schema = {"type": "object", "properties": {"x": {"enum": [5]}}, "required": ["x"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    kinds = set()
    for seed in range(12):
        found = choice(server, response_format=form, seed=seed, parallel_tool_calls=False, temperature=2)
        calls = found["message"].get("tool_calls")
        kinds.add(calls is None)
        assert calls or json.loads(found["message"]["content"]) == {"x": 5}
    assert kinds == {True, False}
    assert refused(server, guided_regex="a")[1].startswith("Beside tools")
    assert json.loads(choice(server, response_format=form, tool_choice="none")["message"]["content"]) == {"x": 5}


def test_a_team_thinks_and_then_calls(server: Served) -> None:
    found = choice(server, model="toy:hogwild-2", tool_choice=NAMED, max_tokens=600)
    assert found["message"]["reasoning_content"].strip()
    (call,) = found["message"]["tool_calls"]
    jsonschema.validate(json.loads(call["function"]["arguments"]), ADD)


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}


def prompt(server: Served, messages: list[dict[str, Any]]) -> str:
    """The conversation as the model is given it."""
    reply = server.post("/apply-template", {"messages": messages, "tools": TOOLS})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["prompt"])


def test_a_conversation_with_results(server: Served) -> None:
    """A turn that only calls is the same with content null, "" or none; arguments as text or object; parts of text."""
    user: dict[str, Any] = {"role": "user", "content": "Add."}
    result = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    turn: dict[str, Any] = {"role": "assistant", "tool_calls": [CALL]}
    first = prompt(server, [user, turn, result])
    assert '{"name": "add", "arguments": {"a": 1, "b": 2}}' in first
    assert "<tool_response>\n3\n</tool_response>" in first
    as_object = {**CALL, "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    for other in ({**turn, "content": None}, {**turn, "content": ""}, {**turn, "tool_calls": [as_object]}):
        assert prompt(server, [user, other, result]) == first
    parts = [{"type": "text", "text": "3"}]
    assert prompt(server, [user, turn, {**result, "content": parts}]) == first
    talk = [{"role": role, "content": f"Of the {role}."} for role in ("system", "user", "assistant", "user")]
    cut = [
        {**one, "content": [{"type": "text", "text": text} for text in one["content"].partition("the")]} for one in talk
    ]
    assert prompt(server, cut) == prompt(server, talk)
    for given in ("", None, "{}"):
        empty = {**CALL, "function": {"name": "now", "arguments": given}}
        assert '{"name": "now", "arguments": {}}' in prompt(server, [user, {**turn, "tool_calls": [empty]}, result])
    reply = server.post("/v1/chat/completions", {**BODY, "messages": [user, turn, result], "max_tokens": 4}).json()
    assert isinstance(reply["choices"][0]["message"]["content"], str)
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] >= 0


def test_a_turn_that_ends_at_once_behind_a_result(server: Served) -> None:
    """Words that are none, and no missing field."""
    turn: dict[str, Any] = {"role": "assistant", "tool_calls": [CALL]}
    talk = [BODY["messages"][0], turn, {"role": "tool", "tool_call_id": "c1", "content": "3"}]
    asked = {**BODY, "messages": talk, "logit_bias": {END: 100}}
    reply = server.post("/v1/chat/completions", asked).json()
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None}
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("stop", 1)
    assert chunks(server, messages=talk, logit_bias={END: 100})[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("bias", "text"), [({END: -100}, "So: "), ({END: 100}, "")])
def test_stop_texts_stand_beside_the_models_own_ends(server: Served, bias: dict[str, float], text: str) -> None:
    """A reply ends with whichever comes first: the mark, which is left out, or an end of the model's own."""
    form = {"guided_regex": "(So: Observation: no more than this)?", "stop": ["Observation:"], "tools": None}
    found = choice(server, **form, logit_bias=bias)
    assert (found["message"]["content"], found["finish_reason"]) == (text, "stop")


def test_a_call_without_its_result(server: Served) -> None:
    two = {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "c2"}]}
    messages = [{"role": "user", "content": "Add."}, two, {"role": "tool", "tool_call_id": "c1", "content": "3"}]
    param, message = refused(server, messages=messages)
    assert param == "messages"
    assert "c2" in message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools.1"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]}, "tools.0"),
        ({"tool_choice": {"type": "function", "function": {"name": "sub"}}}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
    ],
)
def test_what_cannot_be_done(server: Served, fields: dict[str, Any], param: str) -> None:
    assert refused(server, **fields)[0] == param


def test_a_schema_that_cannot_be_held_is_refused_before_any_token(server: Served) -> None:
    bad = {"type": "object", "properties": {"x": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": bad}}]
    assert refused(server, tools=tools, stream=True)[0] == "tools"


BARE = '```json\n{\n  "name": "add",\n  "arguments": {"a": 7, "b": 2}\n}\n```'

TWO = '{"name": "add", "arguments": {"a": 7, "b": 2}}\n{"name": "add", "arguments": {"a": 1, "b": 2}}'


@pytest.mark.parametrize("size", [1, 2, 5, 9, 1000])
@pytest.mark.parametrize(
    ("text", "words", "calls"),
    [
        (BARE, "", ['{"a": 7, "b": 2}']),
        (BARE.replace("7", "700"), BARE.replace("7", "700"), []),  # not by its schema
        (BARE.replace("add", "sub"), BARE.replace("add", "sub"), []),  # no such tool
        ('Hm.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>', "Hm.", ['{"a": 1, "b": 2}']),
        ('<tool_call>{"arguments": {"a": 2, "b": 1}, "name": "add"}</tool_call>', "", ['{"a": 2, "b": 1}']),
        (BARE[:-20], BARE[:-20], []),  # cut
        (TWO, "", ['{"a": 7, "b": 2}', '{"a": 1, "b": 2}']),
        (f"{BARE}\n{BARE}", "", ['{"a": 7, "b": 2}'] * 2),
        (TWO.replace("1", "100"), TWO[TWO.index("\n") :].replace("1", "100"), ['{"a": 7, "b": 2}']),
        (f"{TWO}\nDone.", "\nDone.", ['{"a": 7, "b": 2}', '{"a": 1, "b": 2}']),
        ("{" + TWO.splitlines()[0] + "}", "", ['{"a": 7, "b": 2}']),  # braces twice
        ("```json\n{" + TWO.splitlines()[0] + "}\n```", "", ['{"a": 7, "b": 2}']),
        ("The sum is 9.", "The sum is 9.", []),
    ],
)
def test_a_bare_call_counts_where_it_fits(size: int, text: str, words: str, calls: list[str]) -> None:
    tokenizer: Any = toy_engine.tokenizer()
    tokenizer.chat_template = HERMES
    reader = TurnReader(call_form(tokenizer), [tool_from_schema("add", "adds", ADD)])
    said, read = "", list[Read]()
    for at in range(0, len(text), size):
        some, more = reader.step(text[at : at + size], last=at + size >= len(text))
        said, read = said + some, [*read, *more]
    assert said == words
    made = [json.loads(json.dumps(call))["function"]["arguments"] for call in written_calls(read)]
    assert made == calls
    assert reader.made == len(calls)


def test_one_bare_call_where_only_one_may_be() -> None:
    tokenizer: Any = toy_engine.tokenizer()
    tokenizer.chat_template = HERMES
    reader = TurnReader(call_form(tokenizer), [tool_from_schema("add", "adds", ADD)], several=False)
    said, read = reader.step(TWO, last=True)
    assert (said, len(written_calls(read)), reader.made) == (TWO[TWO.index("\n") :], 1, 1)


def test_tokens_and_back(server: Served) -> None:
    """llama-server's form and vLLM's."""
    plain = server.post("/tokenize", {"content": "A river"}).json()
    named = server.post("/tokenize", {"model": "toy", "prompt": "A river", "return_token_strs": True}).json()
    assert plain["tokens"] == named["tokens"]
    assert named["count"] == len(named["tokens"]) == len(named["token_strs"])
    assert "".join(named["token_strs"]) == "A river"
    assert named["max_model_len"] == 16384
    pieces = server.post("/tokenize", {"content": "A river", "with_pieces": True}).json()["tokens"]
    assert [piece["id"] for piece in pieces] == plain["tokens"]
    back = server.post("/detokenize", {"tokens": plain["tokens"]}).json()
    assert back == {"content": "A river", "prompt": "A river"}
    messages = [{"role": "user", "content": "Hi."}]
    talk = server.post("/tokenize", {"model": "toy", "messages": messages}).json()
    usage = server.post("/v1/chat/completions", {"model": "toy", "messages": messages, "max_tokens": 1}).json()["usage"]
    assert talk["count"] == usage["prompt_tokens"]
    told = server.http.get("/tokenizer_info").json()
    assert (told["eos_token"], told["bos_token"], told["model_max_length"]) == ("<end>", None, 16384)
    assert (
        len(server.post("/tokenize", {"prompt": told["eos_token"], "add_special_tokens": False}).json()["tokens"]) == 1
    )
    for body in ({}, {"content": "a", "prompt": "b"}):
        assert server.post("/tokenize", body).status_code == 400
    assert server.post("/detokenize", {"tokens": [10**6]}).status_code == 400
    assert server.post("/tokenize", {"model": "gpt-4", "prompt": "a"}).status_code == 404
