"""Models that think before they answer, over HTTP: calls behind a think block that the prompt has already closed, a
call that must be made behind a thought, thoughts that never end, and thoughts, words and a call in one response.

A model without weights draws at random; the ids of the tags and of its end are made likely, so that turns of each kind
come about. How thoughts are told from answers: ``test_serve_formats.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from call_templates import HERMES, tokenizer
from kvorum import Engine
from kvorum.backends.fake import FakeBackend
from serving import Served, served

ASKS = "{{ '<|im_start|>assistant\\n' }}"
THINKS = "{% if enable_thinking is not defined or enable_thinking %}{{ '<think>\\n' }}{% else %}"
THINKS += "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
DIGITS = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": DIGITS}} for name in ("add", "sub")
]
NAMED = {"type": "function", "function": {"name": "add"}}


def thinker() -> Engine:
    tokens = tokenizer("hermes")
    tokens.chat_template = HERMES.replace(ASKS, ASKS + THINKS)
    tokens.add_tokens(["<think>", "</think>"])
    ends = [tokens.convert_tokens_to_ids("<|im_end|>")]
    return Engine(FakeBackend(len(tokens), kv_tokens=16384, ends=ends), tokens, name="toy")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(thinker(), tmp_path_factory.mktemp("store")) as up:
        yield up


def likely(server: Served, **biases: float) -> dict[str, float]:
    """``logit_bias`` by the words for tags: ``thought``, ``call`` and ``end``."""
    tags = {"thought": "</think>", "call": "<tool_call>", "end": "<|im_end|>"}
    found = {}
    for word, bias in biases.items():
        (token,) = server.post("/tokenize", {"content": tags[word], "add_special": False}).json()["tokens"]
        found[str(token)] = bias
    return found


def body(**more: Any) -> dict[str, Any]:
    return {
        "model": "toy",
        "messages": [{"role": "user", "content": "Add."}],
        "tools": TOOLS,
        "max_tokens": 400,
        **more,
    }


def choice(server: Served, **more: Any) -> dict[str, Any]:
    reply = server.post("/v1/chat/completions", body(**more))
    assert reply.status_code == 200, reply.text
    return dict(reply.json()["choices"][0])


def streamed(server: Served, **more: Any) -> list[dict[str, Any]]:
    lines = server.post("/v1/chat/completions", body(**more, stream=True)).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:])["choices"][0] for line in lines[:-1]]


def test_two_calls_behind_an_empty_think_block_of_the_prompt(server: Served) -> None:
    asked = {"tool_choice": "required", "chat_template_kwargs": {"enable_thinking": False}, "temperature": 2}
    asked["logit_bias"] = likely(server, call=6)
    for seed in range(30):
        found = choice(server, **asked, seed=seed)
        if len(found["message"].get("tool_calls") or ()) == 2 and found["finish_reason"] == "tool_calls":
            break
    else:
        pytest.fail("no turn had two calls")
    parts = streamed(server, **asked, seed=seed)
    assert not any(part["delta"].get("reasoning_content") for part in parts)
    assert parts[-1]["finish_reason"] == "tool_calls"
    arguments = ["", ""]
    for part in parts:
        for call in part["delta"].get("tool_calls", ()):
            arguments[call["index"]] += call["function"]["arguments"]
    assert arguments == [call["function"]["arguments"] for call in found["message"]["tool_calls"]]
    assert "reasoning_content" not in found["message"]


def test_a_named_call_behind_a_thought(server: Served) -> None:
    """The grammar makes the call when the thought is over, and the turn cannot end before."""
    likely_ends = likely(server, thought=2, end=6)
    found = choice(server, tool_choice=NAMED, seed=1, logit_bias=likely_ends)
    (call,) = found["message"]["tool_calls"]
    assert (found["finish_reason"], call["function"]["name"]) == ("stop", "add")
    assert set(json.loads(call["function"]["arguments"])) == {"a"}
    assert found["message"]["reasoning_content"]
    parts = streamed(server, tool_choice=NAMED, seed=1, logit_bias=likely_ends)
    assert (
        "".join(part["delta"].get("reasoning_content", "") for part in parts) == found["message"]["reasoning_content"]
    )
    assert parts[-1]["finish_reason"] == "stop"


def test_a_thought_that_never_ends_is_cut_and_is_no_call(server: Served) -> None:
    found = choice(server, tool_choice=NAMED, seed=1, max_tokens=30, logit_bias=likely(server, thought=-100))
    assert found["finish_reason"] == "length"
    assert found["message"]["content"] == ""
    assert found["message"]["reasoning_content"]
    assert "tool_calls" not in found["message"]


def test_thoughts_words_and_a_call_of_one_response(server: Served) -> None:
    """Each item has its place, and each part of one its own."""
    asked: dict[str, Any] = {"model": "toy", "input": "Add.", "max_output_tokens": 400, "stream": True}
    asked["tools"] = [{"type": "function", **tool["function"]} for tool in TOOLS]
    for seed in range(5, 200):
        text = server.post("/v1/responses", {**asked, "seed": seed, "temperature": 6}).text
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        output = events[-1]["response"]["output"]
        if [item["type"] for item in output] == ["reasoning", "message", "function_call"] and all(
            item["content"][0]["text"].strip() for item in output[:2]
        ):
            break
    else:
        pytest.fail("no response had all three")
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    ids = [item["id"] for item in output]
    for event in events[2:-1]:
        assert event.get("item_id", event.get("item", {}).get("id")) == ids[event["output_index"]], event
        part = "content_part" in event["type"] or "_text" in event["type"]
        assert event.get("content_index") == (0 if part else None), event
    deltas = [event["output_index"] for event in events if event["type"].endswith(".delta")]
    assert set(deltas) == {0, 1, 2}
    assert deltas == sorted(deltas)
