"""`/v1/ask` and `/v1/fields`, on the engine without a model and on smollm2-135m.

Covers whole replies and streams, that they say the same and what the library says, documents as texts and as kept
blocks (nothing of which is encoded again, over a restart too), limits, errors, and pages that return. What answers are
worth is in ``test_ask.py`` and ``test_fields.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import Engine
from serving import Served, served

TEXT = "Invoice 12 of Miller and Sons, 4 May 2026. Total: 41.20 euros. To be paid by 3 June."
QUESTIONS = ["What is the total?", "Who sent it?", "When is it due?"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"total": {"type": "number"}, "sender": {"type": ["string", "null"]}},
    "required": ["total", "sender"],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    engine = Engine.load("smollm2-135m", kv_tokens=16384)
    with served(engine, tmp_path_factory.mktemp("store"), prompt_tokens=2000) as up:
        yield up


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(toy_engine.fake(name="toy"), tmp_path_factory.mktemp("store"), prompt_tokens=2000, blocks=3) as up:
        yield up


def events(server: Served, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What a stream says, without the mark of its end, which is there."""
    with server.http.stream("POST", path, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200
        data = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]]


def forget(server: Served) -> None:
    for block in server.http.get("/v1/blocks").json()["data"]:
        server.http.delete(f"/v1/blocks/{block['id']}")


def test_ask_as_the_library_does(small: Served) -> None:
    body = {"documents": {"invoice": TEXT}, "questions": QUESTIONS, "tokens": 24, "quote": True}
    reply = small.post("/v1/ask", body).json()
    own = Engine.load("smollm2-135m", kv_tokens=16384).ask({"invoice": TEXT}, QUESTIONS, tokens=24, quote=True)
    assert [one["question"] for one in reply["answers"]] == QUESTIONS
    assert [one["text"] for one in reply["answers"]] == [answer.text for answer in own.answers]
    for one in reply["answers"]:
        if quote := one.get("quote"):
            assert TEXT[quote["start"] : quote["end"]] == quote["text"]
    assert reply["documents"] == {}
    assert reply["usage"]["input_tokens_details"]["cached_tokens"] == 0
    assert small.free()


def test_a_stream_says_the_same(small: Served) -> None:
    body = {"documents": {"invoice": TEXT}, "questions": QUESTIONS, "tokens": 24, "seed": 3, "temperature": 0.8}
    whole = small.post("/v1/ask", body).json()
    told = events(small, "/v1/ask", body)
    assert told[-1]["type"] == "result"
    texts = ["", "", ""]
    for one in told:
        if one["type"] == "answer.delta":
            texts[one["index"]] += one["delta"]
    answers = [one["text"] for one in whole["answers"]]
    assert [text.strip() or None for text in texts] == answers
    assert [one["text"] for one in told[-1]["answers"]] == answers
    done = {one["index"]: one["text"].strip() or None for one in told if one["type"] == "answer.done"}
    assert [done[at] for at in range(3)] == answers


def test_a_kept_document_is_not_encoded_again(small: Served) -> None:
    body: dict[str, Any] = {"documents": {"invoice": TEXT}, "questions": QUESTIONS, "tokens": 12, "keep": True}
    first = small.post("/v1/ask", body).json()
    block = first["documents"]["invoice"]
    assert (block["sealed"], block["saved"]) == (True, False)
    assert first["usage"]["input_tokens_details"]["cached_tokens"] == 0
    again = small.post("/v1/ask", {**body, "documents": {"other": {"block": block["id"]}}}).json()
    assert again["documents"]["other"]["id"] == block["id"]
    assert again["usage"]["input_tokens_details"]["cached_tokens"] == block["tokens"]
    assert [one["text"] for one in again["answers"]] == [one["text"] for one in first["answers"]]
    filled = small.post("/v1/fields", {"document": {"block": block["id"]}, "schema": SCHEMA}).json()
    assert filled["usage"]["input_tokens_details"]["cached_tokens"] == block["tokens"]
    assert len(small.http.get("/v1/blocks").json()["data"]) == 1
    forget(small)
    gone = small.post("/v1/ask", {**body, "documents": {"other": {"block": block["id"]}}})
    assert gone.status_code == 404
    assert small.free()


def test_a_saved_document_outlives_the_server(tmp_path: Path) -> None:
    body: dict[str, Any] = {"documents": {"d": TEXT}, "questions": ["What?"], "tokens": 8, "keep": True}
    with served(toy_engine.fake(name="toy"), tmp_path) as up:
        block = up.post("/v1/ask", body).json()["documents"]["d"]
        assert up.post(f"/v1/blocks/{block['id']}/save").status_code == 200
    with served(toy_engine.fake(name="toy"), tmp_path) as up:
        reply = up.post("/v1/ask", {**body, "documents": {"d": {"block": block["id"]}}}).json()
        assert reply["usage"]["input_tokens_details"]["cached_tokens"] == block["tokens"]


def test_fields(small: Served) -> None:
    body = {"document": TEXT, "schema": SCHEMA, "confidence": True}
    whole = small.post("/v1/fields", body).json()
    own = Engine.load("smollm2-135m", kv_tokens=16384).fields(TEXT, SCHEMA, confidence=True)
    assert whole["value"] == own.value
    assert [one["name"] for one in whole["fields"]] == ["total", "sender"]
    assert all(0 <= one["confidence"] <= 1 for one in whole["fields"])
    told = events(small, "/v1/fields", body)
    assert told[-1]["value"] == whole["value"]
    assert {one["name"] for one in told if one["type"] == "field.done"} == {"total", "sender"}
    assert any(one["type"] == "field.delta" for one in told)
    assert small.free()


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("ask", {"questions": []}, "questions must not be empty"),
        ("ask", {"questions": ["a"] * 201}, "at most 200"),
        ("ask", {"questions": [" "]}, "empty"),
        ("ask", {"questions": ["a"], "documents": {"d": " "}}, "documents.d is empty"),
        ("ask", {"questions": ["a"], "documents": {"d": {"path": "/etc/passwd"}}}, "path"),
        ("ask", {"questions": ["a"], "documents": ["/etc/passwd"]}, "must be an object"),
        ("ask", {"questions": ["a"], "documents": {"d": "word " * 3000}}, "tokens"),
        ("ask", {"questions": ["a"], "documents": {"d": "ab" * 600, "e": "cd" * 600}}, "together"),
        ("ask", {"questions": ["a"], "tokens": 9000}, "9000 tokens"),
        ("ask", {"questions": ["a"], "split": True}, "split"),
        ("ask", {"questions": ["a"], "model": "toy:vote-3"}, "without a program"),
        ("fields", {"document": "x", "schema": {"$ref": "http://127.0.0.1:1/x.json"}}, ""),
        ("fields", {"document": "x", "schema": {"type": "array"}}, ""),
        ("fields", {"document": "x"}, "schema is missing"),
        ("fields", {"document": "x", "schema": "/etc/passwd"}, "must be an object"),
    ],
)
def test_refusals(toy: Served, path: str, body: dict[str, Any], says: str) -> None:
    reply = toy.post(f"/v1/{path}", body)
    assert reply.status_code == 400, reply.text
    assert says in reply.json()["error"]["message"]
    streamed = toy.post(f"/v1/{path}", {**body, "stream": True})
    assert (streamed.status_code, streamed.json()) == (400, reply.json())
    assert toy.free()


def test_a_path_or_an_address_is_just_a_text(toy: Served) -> None:
    """Nothing is read or fetched because a request names it."""
    for text in ("/etc/passwd", "http://127.0.0.1:1/x", "file:///etc/passwd"):
        reply = toy.post(
            "/v1/ask", {"documents": {"d": text}, "questions": ["What?"], "tokens": 2, "keep": True}
        ).json()
        block = toy.http.get(f"/v1/blocks/{reply['documents']['d']['id']}").json()
        assert text in block["text"]
        forget(toy)
    assert toy.free()


def test_no_more_blocks_than_there_may_be(toy: Served) -> None:
    texts = {str(n): f"text {n}" for n in range(4)}
    reply = toy.post("/v1/ask", {"documents": texts, "questions": ["What?"], "tokens": 2, "keep": True})
    assert reply.status_code == 429
    assert toy.http.get("/v1/blocks").json()["data"] == []


def test_a_limit_of_a_replys_tokens_holds_where_nothing_is_said_of_them(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path, tokens=6) as up:
        body = {"documents": {"d": "It is dry."}, "questions": ["What?"]}
        reply = up.post("/v1/ask", body)
        assert reply.status_code == 200
        assert reply.json()["usage"]["output_tokens"] <= 6
        refused = up.post("/v1/ask", body | {"tokens": 7})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "tokens"
        chat = {"model": "toy", "messages": [{"role": "user", "content": "Hi."}]}
        assert up.post("/v1/chat/completions", chat).json()["usage"]["completion_tokens"] <= 6
        assert up.post("/v1/chat/completions", chat | {"max_tokens": 7}).status_code == 400


def test_characters_that_the_vocabulary_cannot_write_are_told(small: Served) -> None:
    """SmolLM2's has no token for the first byte of these; where something else may stand there, it is written."""
    rare = ["\U000687fd1", "\U000687fd2"]
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"enum": rare}}, "required": ["a"]}
    form = {"document": "a is 5.", "schema": schema}
    assert "no tokens for" in small.post("/v1/fields", form).json()["problems"]["a"]
    chat: dict[str, Any] = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 30}
    chat["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    refused = small.post("/v1/chat/completions", chat)
    assert refused.status_code == 400, refused.text
    assert "no tokens for" in refused.json()["error"]["message"]
    schema["properties"]["a"]["enum"].append("five")
    assert small.post("/v1/fields", form).json()["value"] == {"a": "five"}
    assert small.free()
