"""The OpenAI routes, with the official client and with curl, on a tiny random model.

Covers models, chat and plain completions, whole and streamed, choices, seeds, stops, log-probabilities, echo, usage
with the ledger, programs by name, errors. Other clients are in ``clients/run.py``.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import torch
from openai.types import Completion
from openai.types.chat import ChatCompletionMessageParam

import toy_engine
from kvorum import Row, View
from serving import Served, served

USER: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me of the sea."}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(toy_engine.engine(name="toy"), tmp_path_factory.mktemp("store")) as up:
        yield up


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@dataclass
class Scored:
    """The log-probabilities of a completion, all there."""

    tokens: list[str]
    chances: list[float | None]
    best: list[dict[str, float]]


def scored(reply: Completion) -> Scored:
    told = reply.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    return Scored(told.tokens, [*told.token_logprobs], told.top_logprobs)


@pytest.mark.forward
def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "toy"
    assert {"toy:hogwild-4", "toy:vote-4", "toy:solo-1"} <= set(names)
    assert client.models.retrieve("toy:hogwild-3").id == "toy:hogwild-3"
    with pytest.raises(openai.NotFoundError, match="there is toy"):
        client.models.retrieve("gpt-4")


@pytest.mark.forward
def test_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="toy", messages=USER, max_tokens=12, temperature=0)
    assert reply.object == "chat.completion"
    (choice,) = reply.choices
    assert (choice.message.role, choice.finish_reason) in (("assistant", "length"), ("assistant", "stop"))
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.completion_tokens <= 12
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens is not None
    prefill = reply.usage.model_dump()["kvorum"]["prefill"]
    assert prefill + reply.usage.prompt_tokens_details.cached_tokens == reply.usage.prompt_tokens


@pytest.mark.forward
def test_streams_say_the_same(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "model": "toy",
        "messages": USER,
        "max_tokens": 20,
        "temperature": 0.9,
        "seed": 5,
        "n": 3,
    }
    whole = client.chat.completions.create(**options)
    texts, ends, usage = [""] * 3, [""] * 3, None
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert len(set(texts)) > 1  # the choices draw apart
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens


@pytest.mark.forward
def test_seeds(client: openai.OpenAI) -> None:
    def say(seed: int | openai.Omit = openai.omit) -> str:
        return client.completions.create(model="toy", prompt="abc", max_tokens=16, seed=seed).choices[0].text

    assert say(seed=1) == say(seed=1) != say(seed=2)
    assert len({say() for _ in range(4)}) > 1


@pytest.mark.forward
def test_stop(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "toy", "prompt": "abc", "max_tokens": 40, "temperature": 0}
    text = client.completions.create(**options).choices[0].text
    mark = text[10:12]
    cut = client.completions.create(**options, stop=[mark]).choices[0]
    assert (cut.text, cut.finish_reason) == (text[: text.index(mark)], "stop")


@pytest.mark.forward
def test_equals_the_engine(server: Served, client: openai.OpenAI) -> None:
    """Greedy tokens and log-probabilities are those of plain forwards."""
    ids = toy_engine.tokenizer()("The sea is").input_ids
    engine = toy_engine.engine()
    block = engine.block()
    logits = engine.forward([Row(View(block), ids=ids)]).logits[0]
    expected = []
    for _ in range(8):
        token = int(logits.argmax())
        expected.append((token, float(torch.log_softmax(logits.float(), 0)[token])))
        logits = engine.forward([Row(View(block), ids=[token])]).logits[0]
    reply = client.completions.create(model="toy", prompt=ids, max_tokens=8, temperature=0, logprobs=2)
    told = scored(reply)
    spell = server.service.logprobs.text
    assert told.tokens == [spell(token) for token, _ in expected]
    assert told.chances == pytest.approx([chance for _, chance in expected], abs=1e-4)
    assert all(chance == max(top.values()) for chance, top in zip(told.chances, told.best, strict=True))


def test_echo_scores_the_prompt(client: openai.OpenAI) -> None:
    ids = toy_engine.tokenizer()("The sea is deep and wide, and so is the sky. " * 5).input_ids
    assert len(ids) > 128  # more than one piece
    reply = client.completions.create(model="toy", prompt=ids, max_tokens=1, temperature=0, logprobs=1, echo=True)
    told = scored(reply)
    logits = toy_engine.dense(toy_engine.model(), ids, toy_engine.causal(len(ids))).float()
    expected = torch.log_softmax(logits[:-1], 1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert told.chances[0] is None
    assert told.chances[1 : len(ids)] == pytest.approx(expected.tolist(), abs=1e-4)
    greedy = (logits[:-1].argmax(1) == torch.tensor(ids[1:])).tolist()
    said = zip(told.chances[1 : len(ids)], told.best[1 : len(ids)], strict=True)
    assert [chance == max(top.values()) for chance, top in said] == greedy
    assert reply.choices[0].text.startswith("The sea is deep")


@pytest.mark.forward
def test_chat_logprobs(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="toy", messages=USER, max_tokens=6, logprobs=True, top_logprobs=3)
    assert reply.choices[0].logprobs is not None
    content = reply.choices[0].logprobs.content
    assert content is not None
    assert reply.usage is not None
    assert len(content) == reply.usage.completion_tokens
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.logprob <= token.top_logprobs[0].logprob
        assert math.exp(token.logprob) <= 1


@pytest.mark.forward
def test_program_by_name(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "model": "toy:hogwild-3",
        "messages": USER,
        "seed": 3,
        "extra_body": {"kvorum": {"budget": {"ticks": 12}, "params": {"layout": "interleaved", "final_tokens": 4}}},
    }
    whole = client.chat.completions.create(**options)
    assert whole.usage.kvorum["ticks"] >= 12
    assert "Alice | " in whole.choices[0].message.reasoning_content
    reasoning = content = ""
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
    assert (content, reasoning) == (whole.choices[0].message.content, whole.choices[0].message.reasoning_content)


@pytest.mark.forward
@pytest.mark.parametrize("program", ["plain-1", "solo-1", "vote-2", "hogwild-2"])
def test_a_chat_with_a_team_is_answered_with_a_text(server: Served, client: openai.OpenAI, program: str) -> None:
    reply = client.chat.completions.create(model=f"toy:{program}", messages=USER, seed=3, max_tokens=40)
    run = server.http.get("/v1/runs").json()["data"][0]
    assert run["params"] == {"answer": "text"}
    assert reply.choices[0].message.content == (run["answer"] or "")
    assert run["outcome"] in ("answered", "cut", "none")
    assert reply.choices[0].finish_reason == ("stop" if run["outcome"] == "answered" else "length")
    (told,) = [event for event in server.events(run["id"]) if event["event"] == "prompt"]
    assert "Think step by step" not in str(told)
    boxed = {"kvorum": {"params": {"answer": "boxed"}}}
    client.chat.completions.create(model=f"toy:{program}", messages=USER, seed=3, max_tokens=8, extra_body=boxed)
    assert server.http.get("/v1/runs").json()["data"][0]["params"] == {"answer": "boxed"}


@pytest.mark.forward
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "other"}, "model"),
        ({"model": "toy:hogwild-99"}, "workers"),
        ({"model": "toy:../../etc-4"}, "model"),
        ({"messages": []}, "messages"),
        ({"n": 1000}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 100000}, "max_tokens"),
        ({"tools": [{}]}, "tools"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"model": "toy:tree-2", "kvorum": {"params": {"export": "/tmp/x"}}}, "params.export"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "long " * 60000}]}, "prompt"),
    ],
)
def test_errors(server: Served, body: dict[str, object], param: str | None) -> None:
    reply = server.post("/v1/chat/completions", {"model": "toy", "messages": USER, **body})
    assert reply.status_code in (400, 404), reply.text
    error = reply.json()["error"]
    assert error["message"].endswith(".")
    assert (error["param"] or "").startswith(param or "")


@pytest.mark.forward
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: Served) -> None:
    body = json.dumps({"model": "toy", "messages": USER, "max_tokens": 4, "stream": True})
    words = ["curl", "-sN", f"{server.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert json.loads(lines[0].removeprefix("data: "))["object"] == "chat.completion.chunk"
