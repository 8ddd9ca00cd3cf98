"""What is full: a conversation that outgrows the context is refused with the numbers, or loses its oldest turns.

Covers chat and Responses with `truncation`, whole and streamed, over turns that go on from one another, that calls keep
their results, and what headers and `/health` tell before anything is full. On the engine without a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from serving import Served, served

CONTEXT = 400


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(toy_engine.fake(name="toy", kv_tokens=4096, max_positions=CONTEXT), tmp_path) as up:
        yield up


def said(turns: int, *, rules: str = "") -> list[dict[str, Any]]:
    """A conversation of so many turns and a last question, each of which can be told by its number."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": rules}] if rules else []
    for number in range(turns):
        messages.append({"role": "user", "content": f"Question {number} of many."})
        messages.append({"role": "assistant", "content": f"Answer {number}."})
    return [*messages, {"role": "user", "content": "The last one."}]


def chat(server: Served, messages: list[dict[str, Any]], **more: Any) -> Any:
    return server.post("/v1/chat/completions", {"model": "toy", "messages": messages, "max_tokens": 20, **more})


def prompt_tokens(server: Served, messages: list[dict[str, Any]]) -> int:
    return int(server.post("/tokenize", {"messages": messages}).json()["count"])


def test_chat_refuses_or_leaves_the_oldest_turns_out(server: Served) -> None:
    whole = said(30, rules="Be brief.")
    for disabled in ({}, {"truncation": "disabled"}):
        refused = chat(server, whole, **disabled)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (400, "context_length_exceeded")
        assert str(CONTEXT) in error["message"]
    reply = chat(server, whole, truncation="auto")
    assert reply.status_code == 200, reply.text
    usage = reply.json()["usage"]
    dropped = usage["kvorum"]["dropped_messages"]
    assert reply.headers["x-kvorum-dropped-messages"] == str(dropped)
    assert dropped > 0
    assert dropped % 2 == 0
    kept = [whole[0], *whole[1 + dropped :]]
    assert usage["prompt_tokens"] == prompt_tokens(server, kept) <= CONTEXT - 20
    more = [whole[0], *whole[1 + dropped - 2 :]]  # as many as fit
    assert prompt_tokens(server, more) > CONTEXT - 20 - 8
    short = chat(server, said(1), truncation="auto")
    assert "dropped_messages" not in short.json()["usage"]["kvorum"]
    assert "x-kvorum-dropped-messages" not in short.headers
    streamed = chat(server, whole, truncation="auto", stream=True)
    assert streamed.headers["x-kvorum-dropped-messages"] == str(dropped)


def test_how_near_the_end_is(server: Served) -> None:
    messages = said(2)
    reply = chat(server, messages)
    left = CONTEXT - prompt_tokens(server, messages)
    assert (reply.headers["x-kvorum-context"], reply.headers["x-kvorum-context-left"]) == (str(CONTEXT), str(left))
    plain = server.post("/v1/completions", {"model": "toy", "prompt": ["ab", "a"], "max_tokens": 1})
    assert plain.headers["x-kvorum-context-left"] == str(CONTEXT - 2), "of the longer one"
    asked = {"model": "toy", "messages": messages, "max_tokens": 20}
    for stream in (False, True):
        other = server.post("/v1/messages", {**asked, "stream": stream})
        assert other.headers["x-kvorum-context-left"] == str(left)
        said_so = {"model": "toy", "input": messages, "max_output_tokens": 20, "stream": stream}
        other = server.post("/v1/responses", said_so)
        assert other.headers["x-kvorum-context-left"] == str(left)
        other = server.post("/v1/responses", {**said_so, "input": said(30), "truncation": "auto"})
        assert int(other.headers["x-kvorum-dropped-messages"]) > 0
    assert server.http.get("/v1/models").json()["data"][0]["max_model_len"] == CONTEXT
    health = server.http.get("/health").json()
    assert {"total", "free", "prefixes", "blocks", "reserved"} <= set(health["pages"])
    assert 0 < health["store"]["free_bytes"] <= health["store"]["total_bytes"]


def test_a_call_keeps_its_result(server: Served) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Look. " * 40},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Seen. " * 10},
        {"role": "user", "content": "And?"},
    ]
    reply = chat(server, messages, truncation="auto")
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["kvorum"]["dropped_messages"] == 3


def test_a_last_turn_that_is_too_long_is_refused(server: Served) -> None:
    messages = [*said(3), {"role": "user", "content": "x" * (CONTEXT + 1)}]
    refused = chat(server, messages, truncation="auto")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_responses_go_on_from_one_another_without_end(server: Served) -> None:
    """Each turn goes on behind the last; once all do not fit, the oldest are left out, which later replies say too."""
    before, dropped = None, [0]
    for number in range(12):
        body = {"model": "toy", "input": f"Question {number} of many, and it is a long one.", "max_output_tokens": 8}
        reply = server.post("/v1/responses", {**body, "previous_response_id": before, "truncation": "auto"})
        assert reply.status_code == 200, reply.text
        found = reply.json()
        assert found["truncation"] == "auto"
        assert found["usage"]["input_tokens"] + 8 <= CONTEXT
        dropped.append(found["usage"].get("kvorum", {}).get("dropped_messages", 0))
        before = found["id"]
    assert dropped == sorted(dropped)
    assert dropped[-1] > 0
    refused = server.post("/v1/responses", {"model": "toy", "input": "x" * CONTEXT, "previous_response_id": before})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
