"""`/v1/responses` with the official client, on a tiny random model and on smollm2-135m.

Covers text and calls of functions, whole and streamed, the order of events, ids and numbers in them, structured output,
going on from a stored response with nothing encoded again, what is stored and what is not, over a restart too, cancel,
delete, input items, teams as agents, words added to one at work, and refusals. What a small model answers is not looked
at.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from pydantic import BaseModel

import toy_engine
from kvorum import Engine, Run, View, program
from serving import Served, served

ADD: Any = {
    "type": "function",
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "integer", "maximum": 99}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}


@program("waits", "writes until it is told something, which is its answer")
async def waits(run: Run) -> str | None:
    worker = run.workers[0]
    worker.view = View(run.block("own"))
    worker.feed([1])
    while not run.spent:
        await run.tick([worker])
        for command in run.take_commands():
            if command.kind == "say":
                return f"heard {command.text}"
        await asyncio.sleep(0.01)
    return None


class City(BaseModel):
    name: str
    large: bool


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(Engine.load("smollm2-135m", kv_tokens=16384), tmp_path_factory.mktemp("store")) as up:
        yield up


@pytest.fixture(scope="module")
def client(small: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{small.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Served]:
    with served(toy_engine.fake(name="toy"), tmp_path / "toy", tokens=2000) as up:
        yield up


def test_a_conversation_goes_on_and_nothing_of_it_is_encoded_again(client: openai.OpenAI) -> None:
    told: dict[str, Any] = {"model": "smollm2-135m", "instructions": "Be brief.", "max_output_tokens": 60}
    first = client.responses.create(input="What is the capital of France?", temperature=0, **told)
    assert (first.status, first.output[0].type) == ("completed", "message")
    assert first.output_text
    assert first.usage is not None
    assert first.usage.input_tokens_details.cached_tokens == 0
    going_on: dict[str, Any] = {"previous_response_id": first.id, **told}
    second = client.responses.create(input="And of Spain?", temperature=0, **going_on)
    assert second.usage is not None
    known = first.usage.input_tokens + first.usage.output_tokens - 1  # the mark of the end was never encoded
    assert second.usage.input_tokens_details.cached_tokens == known
    assert second.usage.input_tokens > known
    branch = client.responses.create(input="And of Italy?", temperature=0, **going_on)
    assert branch.usage is not None
    assert branch.usage.input_tokens_details.cached_tokens >= known
    other = client.responses.create(input="And?", **{**going_on, "instructions": "Be long."})
    assert other.usage is not None
    assert other.usage.input_tokens_details.cached_tokens < known  # told otherwise from the beginning on


def test_stored_or_not(client: openai.OpenAI) -> None:
    made = client.responses.create(model="smollm2-135m", input="Hi.", max_output_tokens=8, metadata={"a": "b"})
    assert client.responses.retrieve(made.id).to_dict() == made.to_dict()
    assert made.metadata == {"a": "b"}
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError, match="no stored response"):
        client.responses.create(model="smollm2-135m", input="Hi.", previous_response_id=made.id)
    unstored = client.responses.create(model="smollm2-135m", input="Hi.", max_output_tokens=8, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unstored.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="smollm2-135m", input="Hi.", previous_response_id=unstored.id)
    assert caught.value.param == "previous_response_id"


def test_the_events_of_a_message(client: openai.OpenAI) -> None:
    """In the order of the reference; numbers grow by one; one id for all of an item; the client's own reader is
    content."""
    with client.responses.stream(model="smollm2-135m", input="Say hi.", max_output_tokens=200, temperature=0) as told:
        events = list(told)
        final = told.get_final_response()
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == [*range(len(events))]
    ids = {event.item_id for event in events if hasattr(event, "item_id")}
    assert ids == {final.output[0].to_dict()["id"]}
    assert {event.output_index for event in events if hasattr(event, "output_index")} == {0}
    assert client.responses.retrieve(final.id).output_text == final.output_text  # at once
    assert final.usage is not None


def test_calls(client: openai.OpenAI) -> None:
    """Forced by the grammar; whole and streamed; and the output of the call is answered behind it."""
    asked: dict[str, Any] = {
        "model": "smollm2-135m",
        "input": "What is 17 + 25?",
        "tools": [ADD],
        "tool_choice": {"type": "function", "name": "add"},
        "max_output_tokens": 200,
        "temperature": 0,
        "seed": 1,
    }
    seed = asked.pop("seed")
    whole = client.responses.create(**asked, extra_body={"seed": seed})
    assert whole.status == "completed"
    (call,) = [item for item in whole.output if item.type == "function_call"]
    assert call.id is not None
    assert (call.id[:3], call.call_id[:5]) == ("fc_", "call_")
    assert set(json.loads(call.arguments)) == {"a", "b"}
    assert not [item for item in whole.output if item.type == "message"]
    arguments, kinds = "", []
    with client.responses.stream(**asked, extra_body={"seed": seed}) as told:
        for event in told:
            kinds.append(event.type)
            if event.type == "response.function_call_arguments.delta":
                arguments += event.delta
        final = told.get_final_response()
    assert arguments == call.arguments
    assert kinds.count("response.function_call_arguments.done") == kinds.count("response.output_item.added") == 1
    assert [item.type for item in final.output] == ["function_call"]
    answered = client.responses.create(
        model="smollm2-135m",
        previous_response_id=whole.id,
        tools=[ADD],
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "42"}],
        max_output_tokens=20,
    )
    assert whole.usage is not None
    assert answered.usage is not None
    assert answered.usage.input_tokens_details.cached_tokens >= whole.usage.input_tokens
    items = client.responses.input_items.list(answered.id, order="asc").data
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]
    full: list[Any] = [
        {"role": "user", "content": "What is 17 + 25?"},
        {"type": "function_call", "call_id": "x", "name": "add", "arguments": call.arguments},  # without an id
        {"type": "function_call_output", "call_id": "x", "output": [{"type": "input_text", "text": "42"}]},
    ]
    again = client.responses.create(model="smollm2-135m", input=full, tools=[ADD], max_output_tokens=4)
    assert again.status in ("completed", "incomplete")
    with pytest.raises(openai.BadRequestError, match="'y'"):
        client.responses.create(model="smollm2-135m", input=[full[2] | {"call_id": "y"}])


def test_structured_output(client: openai.OpenAI) -> None:
    made = client.responses.parse(
        model="smollm2-135m", input="Name a city.", text_format=City, max_output_tokens=300, temperature=0
    )
    assert isinstance(made.output_parsed, City)


def test_a_team_is_agents_below_the_root(client: openai.OpenAI) -> None:
    """In the wire form of the client's multi-agent responses, whole and streamed."""
    made = client.beta.responses.create(model="smollm2-135m:hogwild-2", input="What is 2 + 2?", max_output_tokens=80)
    lines = [item for item in made.output if item.type == "agent_message"]
    assert lines
    assert {line.author for line in lines} <= {"/root/Alice", "/root/Bob"}
    assert all(line.agent is not None and line.agent.agent_name == line.author for line in lines)
    root = made.output[-1]
    assert root.type == "message"
    assert root.agent is not None
    assert (root.phase, root.agent.agent_name) == ("final_answer", "/root")
    events = list(
        client.beta.responses.create(model="smollm2-135m:hogwild-2", input="2 + 2?", max_output_tokens=40, stream=True)
    )
    assert [event.sequence_number for event in events] == [*range(len(events))]
    added = [event.item.type for event in events if event.type == "response.output_item.added"]
    assert set(added[:-1]) <= {"agent_message"}
    assert added[-1] == "message"


def test_a_team_answers_in_the_form_that_is_asked_for(client: openai.OpenAI) -> None:
    """The schema binds the root's answer, not the workers' lines; whole and streamed."""
    sizes = {"type": "object", "properties": {"large": {"type": "boolean"}}, "required": ["large"]}
    kind: Any = {"type": "json_schema", "name": "size", "schema": sizes | {"additionalProperties": False}}
    ask: Any = {"model": "smollm2-135m:hogwild-2", "input": "Is Rome large?", "max_output_tokens": 60, "temperature": 0}
    made = client.responses.create(**ask, text={"format": kind})
    assert {item.type for item in made.output} == {"agent_message", "message"}
    assert list(json.loads(made.output_text)) == ["large"]
    assert made.usage is not None
    assert 30 < made.usage.output_tokens <= 61
    *_, last = client.responses.create(**ask, text={"format": kind}, stream=True)
    assert last.type == "response.completed"
    assert list(json.loads(last.response.output_text)) == ["large"]
    with pytest.raises(openai.BadRequestError, match="without a program"):
        client.responses.create(**ask, tools=[ADD])


def test_words_are_added_to_a_program_that_is_at_work(tmp_path: Path) -> None:
    """A further message on the conversation: the workers hear it, and both replies are what comes of it."""
    ask: Any = {"model": "toy:waits", "stream": True}
    with (
        served(toy_engine.fake(name="toy"), tmp_path, programs=[waits], tokens=4000) as up,
        openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as client,
    ):
        create: Any = client.responses.create
        first = create(input="Begin.", **ask)
        before: str = next(iter(first)).response.id
        for wrong in (
            {"model": "toy:waits-2", "input": "x"},
            {"model": "toy:waits", "input": [{"role": "assistant", "content": "x"}]},
            {"model": "toy:waits", "input": "x", "instructions": "Be brief."},
        ):
            with pytest.raises(openai.BadRequestError, match="at work"):
                create(previous_response_id=before, **wrong)
        with pytest.raises(openai.BadRequestError, match="nothing to tell"):
            create(previous_response_id=before, model="toy:waits", input="  ")
        second = create(model="toy:waits", input="And this.", previous_response_id=before)
        assert second.output_text == "heard And this."
        *_, end = first
        assert (end.type, end.response.output_text) == ("response.completed", "heard And this.")
        items: Any = client.responses.input_items.list(second.id, order="asc").data
        said = [item.content[0].text for item in items]
        assert said == ["Begin.", "And this."]
        assert create(model="toy", input="x", previous_response_id=second.id, max_output_tokens=2).id

        third = create(input="Once more.", **ask)
        before = next(iter(third)).response.id
        run = next(run["id"] for run in up.http.get("/v1/runs").json()["data"] if run["status"] == "running")
        third.close()
        up.until(run, "stopped")
        assert not up.service.listening


def test_thoughts_and_answer_come_side_by_side(tmp_path: Path) -> None:
    """Of a program that says whose words are the answer: an item of thoughts and one of words, both open at once."""
    with (
        served(toy_engine.fake(name="toy"), tmp_path, tokens=4000) as up,
        openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as client,
    ):
        asked: Any = {
            "model": "toy:async_reasoning",
            "input": "Why?",
            "stream": True,
            "max_output_tokens": 120,
            "temperature": 0,
        }
        events: list[Any] = list(client.responses.create(**asked))
    *_, end = events
    kinds = [item.type for item in end.response.output]
    assert sorted(kinds) == ["message", "reasoning"]
    for at, item in enumerate(end.response.output):
        deltas = [e.delta for e in events if e.type.endswith("_text.delta") and e.output_index == at]
        assert "".join(deltas) == item.content[0].text
        assert len(deltas) > 1


def test_cut(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="smollm2-135m", input="Count to a thousand.", max_output_tokens=5, temperature=0
    )
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.output[0].to_dict()["status"] == "incomplete"


def test_over_a_restart(tmp_path: Path) -> None:
    body = {"model": "toy", "input": "Hello.", "max_output_tokens": 8}
    with served(toy_engine.fake(name="toy"), tmp_path) as up:
        made = up.post("/v1/responses", body).json()
    with served(toy_engine.fake(name="toy"), tmp_path) as up:
        assert up.http.get(f"/v1/responses/{made['id']}").json() == made
        more = up.post("/v1/responses", {**body, "previous_response_id": made["id"]})
        assert more.status_code == 200
        assert more.json()["usage"]["input_tokens"] > made["usage"]["input_tokens"]


def test_cancel(toy: Served) -> None:
    """A response that is being streamed ends where it is, and is stored so."""
    body = {"model": "toy", "input": "Hello.", "max_output_tokens": 2000, "stream": True, "text": {"format": {}}}
    body["kvorum"] = {}
    with toy.http.stream("POST", "/v1/responses", json={**body, "temperature": 0}) as reply:
        lines = reply.iter_lines()
        first = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        number = first["response"]["id"]
        assert toy.http.get(f"/v1/responses/{number}").json()["status"] in ("in_progress", "completed", "incomplete")
        cancelled = toy.post(f"/v1/responses/{number}/cancel")
        last = [json.loads(line[6:]) for line in lines if line.startswith("data: ")][-1]
    status = last["response"]["status"]
    if cancelled.status_code == 200:
        assert cancelled.json()["status"] == status
    assert toy.http.get(f"/v1/responses/{number}").json()["status"] == status
    again = toy.post(f"/v1/responses/{number}/cancel")
    assert again.status_code == (200 if status == "cancelled" else 400)
    assert toy.free()


def test_the_turn_behind_one_whose_client_went_away(toy: Served) -> None:
    """P107: what the client did not get is in no later prompt, and the next turn is served."""
    body = {"model": "toy", "input": "Hello.", "max_output_tokens": 8, "temperature": 0}
    before = toy.post("/v1/responses", body).json()["id"]
    turn = {**body, "input": "And more.", "previous_response_id": before}
    wanted = toy.post("/v1/responses", turn).json()
    long = {**turn, "max_output_tokens": 2000, "stream": True}
    with toy.http.stream("POST", "/v1/responses", json=long) as reply:
        told = (json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: "))
        left = next(told)["response"]["id"]
        next(event for event in told if event["type"] == "response.output_text.delta")
    assert toy.free()
    again = toy.post("/v1/responses", turn).json()
    assert again["usage"]["input_tokens"] == wanted["usage"]["input_tokens"]
    assert [part["text"] for item in again["output"] for part in item["content"]] == [
        part["text"] for item in wanted["output"] for part in item["content"]
    ]
    refused = toy.post("/v1/responses", {**body, "previous_response_id": left})
    assert refused.status_code == 400
    assert left in refused.json()["error"]["message"]


def test_pages_of_input_items(toy: Served) -> None:
    given = [{"role": "user", "content": f"word {n}", "id": "of all"} for n in range(5)]
    made = toy.post("/v1/responses", {"model": "toy", "input": given, "max_output_tokens": 2}).json()
    path = f"/v1/responses/{made['id']}/input_items"
    page = toy.http.get(path, params={"limit": 2}).json()
    assert [item["content"] for item in page["data"]] == ["word 4", "word 3"]
    assert page["has_more"]
    rest = toy.http.get(path, params={"limit": 5, "after": page["last_id"]}).json()
    assert [item["content"] for item in rest["data"]] == ["word 2", "word 1", "word 0"]
    assert not rest["has_more"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "x", "truncation": "some"}, "truncation"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools.0"),
        ({"input": "x", "tools": [{**ADD, "parameters": {"type": "array"}}]}, "tools.0"),
        ({"input": "x", "tool_choice": {"type": "function", "name": "no"}}, "tool_choice"),
        ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "schema": {"type": "cat"}}}}, "text.format"),
        ({"input": [{"type": "computer_call"}]}, "input.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]}, None),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input.0"),
        ({"input": "x", "model": "gpt-9"}, "model"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_refusals(toy: Served, body: dict[str, Any], param: str | None) -> None:
    reply = toy.post("/v1/responses", {"model": "toy", **body})
    assert reply.status_code in (400, 404), reply.text
    error = reply.json()["error"]
    assert param is None or error["param"] == param
    streamed = toy.post("/v1/responses", {"model": "toy", "stream": True, **body})
    assert (streamed.status_code, streamed.json()) == (reply.status_code, reply.json())
