"""`/v1/messages` with the official client, on smollm2-135m and on the engine without a model.

Covers text and uses of tools, whole and streamed, results of tools, stop reasons, tokens counted, errors in Anthropic's
form, also in a stream that breaks off, replies in a form, the client's own loop with tools, keys, and refusals. What a
small model answers is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import pydantic
import pytest
import torch

import toy_engine
from kvorum import Engine
from kvorum.backends.backend import Done, Work
from kvorum.backends.fake import FakeBackend
from kvorum.errors import OutOfPages
from serving import KEY, Served, served

ADD: Any = {
    "name": "add",
    "description": "Adds two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "integer", "maximum": 99}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
USER: Any = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(Engine.load("smollm2-135m", kv_tokens=16384), tmp_path_factory.mktemp("store")) as up:
        yield up


@pytest.fixture(scope="module")
def client(small: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=small.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Served]:
    with served(toy_engine.fake(name="toy"), tmp_path) as up:
        yield up


def test_text(small: Served, client: anthropic.Anthropic) -> None:
    told: Any = {"model": "smollm2-135m", "system": "Be brief.", "max_tokens": 200, "extra_body": {"temperature": 0}}
    made = client.messages.create(messages=USER, **told)
    assert (made.type, made.role, made.stop_reason) == ("message", "assistant", "end_turn")
    assert made.id.startswith("msg_")
    (block,) = made.content
    assert block.type == "text"
    counted = client.messages.count_tokens(model="smollm2-135m", system="Be brief.", messages=USER)
    assert made.usage.input_tokens + (made.usage.cache_read_input_tokens or 0) == counted.input_tokens
    chat = {"model": "smollm2-135m", "max_tokens": 200, "temperature": 0}
    words = [{"role": "system", "content": "Be brief."}, *USER]
    reply = small.post("/v1/chat/completions", {**chat, "messages": words}).json()
    assert block.text == reply["choices"][0]["message"]["content"]
    again = client.messages.create(messages=USER, **told)
    assert again.usage.cache_read_input_tokens == counted.input_tokens


def test_a_stream_says_the_same(client: anthropic.Anthropic) -> None:
    told: Any = {"model": "smollm2-135m", "messages": USER, "max_tokens": 40, "extra_body": {"temperature": 0}}
    whole = client.messages.create(**told)
    with client.messages.stream(**told) as events:
        kinds = [event.type for event in events if event.type not in ("text", "input_json")]
        final = events.get_final_message()
    deltas = kinds.count("content_block_delta")
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_stop_reasons(client: anthropic.Anthropic) -> None:
    told: Any = {"model": "smollm2-135m", "messages": USER, "extra_body": {"temperature": 0}}
    cut = client.messages.create(max_tokens=4, **told)
    assert cut.stop_reason == "max_tokens"
    text = client.messages.create(max_tokens=40, **told).content[0]
    assert text.type == "text"
    mark = text.text.split()[1]
    stopped = client.messages.create(max_tokens=40, stop_sequences=[mark], **told)
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", mark)
    assert stopped.content[0].type == "text"
    assert mark not in stopped.content[0].text


def test_tools(client: anthropic.Anthropic) -> None:
    """One block and nothing beside it; the same in a stream; its result is answered."""
    told: Any = {
        "model": "smollm2-135m",
        "tools": [ADD],
        "max_tokens": 200,
        "extra_body": {"temperature": 0},
        "messages": USER,
    }
    told["tool_choice"] = {"type": "tool", "name": "add"}
    made = client.messages.create(**told)
    (block,) = made.content
    assert block.type == "tool_use"
    assert (block.id[:6], made.stop_reason) == ("toolu_", "tool_use")
    assert set(block.input) == {"a", "b"}
    joined = ""
    with client.messages.stream(**told) as events:
        for event in events:
            if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                joined += event.delta.partial_json
        final = events.get_final_message()
    assert json.loads(joined) == block.input
    assert final.content[0].to_dict()["input"] == block.input
    assert final.stop_reason == "tool_use"
    del told["tool_choice"]
    results: list[Any] = ["42", [{"type": "text", "text": "42"}]]
    counts = set()
    for result in results:
        content: list[Any] = [{"type": "tool_result", "tool_use_id": block.id, "content": result}]
        turns = [*USER, {"role": "assistant", "content": made.content}, {"role": "user", "content": content}]
        told["messages"] = turns
        assert client.messages.create(**{**told, "max_tokens": 20}).content
        counts.add(client.messages.count_tokens(model="smollm2-135m", tools=[ADD], messages=turns).input_tokens)
    assert len(counts) == 1  # text and a list of one text are the same
    told["messages"] = [*USER, {"role": "assistant", "content": made.content}, *USER]
    with pytest.raises(anthropic.BadRequestError, match=block.id):
        client.messages.create(**told)


def test_a_team_thinks(client: anthropic.Anthropic) -> None:
    made = client.messages.create(model="smollm2-135m:hogwild-2", messages=USER, max_tokens=60)
    assert [block.type for block in made.content] == ["thinking", "text"]
    assert made.content[0].type == "thinking"
    assert "Alice | " in made.content[0].thinking or "Bob | " in made.content[0].thinking


def test_a_reply_in_a_form(client: anthropic.Anthropic, toy: Served) -> None:
    """By ``output_config`` as `parse` sends it, and streamed; not for teams."""

    class River(pydantic.BaseModel):
        size: Literal["long", "short"]
        big: bool

    told: Any = {"model": "smollm2-135m", "messages": USER, "max_tokens": 60, "output_format": River}
    parsed = client.messages.parse(**told).parsed_output
    assert isinstance(parsed, River)
    with client.messages.stream(**told) as events:
        assert isinstance(events.get_final_message().parsed_output, River)
    team = {**told, "model": "smollm2-135m:hogwild-2"}
    with pytest.raises(anthropic.BadRequestError, match=r"output_config\.format is for the model itself"):
        client.messages.parse(**team)
    bad = {"format": {"type": "json_schema", "schema": {"type": "no"}}}
    refused = toy.post("/v1/messages", {"model": "toy", "max_tokens": 4, "messages": USER, "output_config": bad})
    assert refused.status_code == 400


def test_the_clients_own_loop_sends_whole_conversations(client: anthropic.Anthropic) -> None:
    """It asks for a conversation that the server holds, hears that there is none, and goes on without."""
    called = []

    @anthropic.beta_tool
    def add(a: int, b: int) -> str:
        """Adds two numbers."""
        called.append((a, b))
        return str(a + b)

    runner = client.beta.messages.tool_runner(
        model="smollm2-135m",
        max_tokens=60,
        tools=[add],
        tool_choice={"type": "tool", "name": "add"},
        messages=USER,
        max_iterations=2,
        extra_body={"temperature": 0},
    )
    assert len(list(runner)) == 2
    assert called
    with pytest.raises(anthropic.BadRequestError, match="thread is not there"):
        client.beta.messages.create(model="smollm2-135m", max_tokens=4, messages=USER, thread={"type": "create"})


def test_a_reply_that_the_request_begins_is_refused(client: anthropic.Anthropic) -> None:
    """As the newer models of Anthropic's do: it would be answered as a turn that is over."""
    begun: Any = [*USER, {"role": "assistant", "content": "It is"}]
    with pytest.raises(anthropic.BadRequestError, match="last message is the user's"):
        client.messages.create(model="smollm2-135m", max_tokens=4, messages=begun)


def test_errors(client: anthropic.Anthropic, toy: Served) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="claude-9", messages=USER, max_tokens=4)
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert missing.value.request_id
    reply = toy.post("/v1/messages", {"model": "toy", "messages": USER})
    assert reply.status_code == 400
    assert reply.json()["type"] == "error"
    assert "max_tokens" in reply.json()["error"]["message"]
    image: Any = [{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:1/x.png"}}]
    bodies: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": image}]},
        {"messages": []},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": USER, "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"messages": USER, "tool_choice": {"type": "tool", "name": "no"}, "tools": [ADD]},
        {"messages": USER, "tools": [{**ADD, "name": "a b"}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "1"}]}]},
    ]
    for body in bodies:
        refused = toy.post("/v1/messages", {"model": "toy", "max_tokens": 4, **body})
        assert refused.status_code == 400, body
        assert refused.json()["error"]["type"] == "invalid_request_error"


def test_a_stream_that_breaks_off_has_an_error_and_no_end(tmp_path: Path) -> None:
    class Breaks(FakeBackend):
        left = 12

        def forward(self, work: Work) -> Done:
            self.left -= 1
            if not self.left:
                raise OutOfPages("The cache is full.")
            return super().forward(work)

    vocab = len(toy_engine.tokenizer())
    engine = Engine(Breaks(vocab, ends=[vocab - 1]), toy_engine.tokenizer(), name="toy")
    told: Any = {"model": "toy", "messages": USER, "max_tokens": 90, "extra_body": {"seed": 0}}
    with (
        served(engine, tmp_path) as up,
        anthropic.Anthropic(base_url=up.url, api_key="none", max_retries=0) as made,
        made.messages.stream(**told) as events,
    ):
        kinds: list[str] = []
        with pytest.raises(anthropic.APIStatusError, match="The cache is full") as caught:
            kinds.extend(event.type for event in events)
    assert caught.value.body["type"] == "error"  # type: ignore[index]
    assert kinds[0] == "message_start"
    assert not {"message_delta", "message_stop"} & {*kinds}


def test_key(tmp_path: Path) -> None:
    """Anthropic's clients send it in a header of their own."""
    with served(toy_engine.fake(name="toy"), tmp_path, key=KEY) as up:
        told: Any = {"model": "toy", "messages": USER, "max_tokens": 2}
        with anthropic.Anthropic(base_url=up.url, api_key=KEY, max_retries=0) as made:
            assert made.messages.create(**told).content
        with (
            anthropic.Anthropic(base_url=up.url, api_key="wrong", max_retries=0) as made,
            pytest.raises(anthropic.AuthenticationError),
        ):
            made.messages.create(**told)
