"""``/v1/embeddings`` with the official client, on a tiny random model: against transformers' own hidden states.

Covers texts and ids, one and many, long ones in pieces, both encodings, usage, the limits, a key's tokens, the pages
that come back, and each refusal. How good such embeddings are for a search is in the docs, not here.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
import torch

import toy_engine
from kvorum import Row, View
from kvorum.serve.keys.api_key import ApiKey
from serving import Served, served, together

pytestmark = pytest.mark.forward

TEXTS = ["A cat sat on the mat.", "x", "The pump stands still. " * 30, "größer 日本 🫠"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(toy_engine.engine(name="toy", prefill_chunk=64), tmp_path_factory.mktemp("store")) as up:
        yield up


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ids(text: str) -> list[int]:
    return list(toy_engine.tokenizer()(text).input_ids)


def expected(text: str) -> np.ndarray:
    """By transformers alone."""
    states = toy_engine.model()(torch.tensor([ids(text)]), output_hidden_states=True).hidden_states[-1][0]
    mean = states.mean(0)
    found: np.ndarray = (mean / mean.norm()).detach().numpy()
    return found


def test_they_are_the_mean_of_the_hidden_states(server: Served, client: openai.OpenAI) -> None:
    """One by one, in a list and as ids; the client asks for base64 by itself."""
    made = client.embeddings.create(model="toy", input=TEXTS)
    assert [item.index for item in made.data] == list(range(len(TEXTS)))
    for text, item in zip(TEXTS, made.data, strict=True):
        np.testing.assert_allclose(item.embedding, expected(text), atol=1e-6)
    tokens = sum(len(ids(text)) for text in TEXTS)
    assert made.usage.prompt_tokens == made.usage.total_tokens == tokens
    by_ids = client.embeddings.create(model="toy", input=[ids(text) for text in TEXTS], encoding_format="float")
    for one, other in zip(made.data, by_ids.data, strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)
    (alone,) = client.embeddings.create(model="toy", input=ids(TEXTS[0])).data
    np.testing.assert_allclose(alone.embedding, made.data[0].embedding, atol=1e-6)
    assert server.free()


def test_both_encodings_are_the_same_numbers(server: Served) -> None:
    told = server.post("/v1/embeddings", {"model": "toy", "input": "x"}).json()
    coded = server.post("/v1/embeddings", {"model": "toy", "input": "x", "encoding_format": "base64"}).json()
    numbers = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), dtype="<f4")
    assert numbers.tolist() == told["data"][0]["embedding"]
    assert told["kvorum"] == {"pooling": "mean of the last hidden states", "dimensions": 32}
    assert "embeddings" in server.http.get("/v1/models/toy").json()["capabilities"]
    assert "embeddings" not in server.http.get("/v1/models/toy:vote-2").json()["capabilities"]


def test_several_texts_share_a_tick(server: Served, client: openai.OpenAI) -> None:
    ticks = server.service.engine.ledger.ticks
    client.embeddings.create(model="toy", input=["abcdefgh"] * 20)  # of 64 tokens and fewer
    assert server.service.engine.ledger.ticks - ticks <= 3


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("input", "", "input"),
        ("input", [], "input"),
        ("input", ["a", ""], "input"),
        ("input", [[1, 2], []], "input"),
        ("input", [100000], "input"),
        ("input", [-1], "input"),
        ("input", ["a"] * 2049, "input"),
        ("input", "a" * 17000, "input"),
        ("input", {"text": "a"}, "input"),
        ("input", [["a"]], "input"),
        ("dimensions", 16, "dimensions"),
        ("dimensions", 0, "dimensions"),
        ("encoding_format", "hex", "encoding_format"),
        ("model", "toy:vote-2", "model"),
    ],
)
def test_refused(server: Served, field: str, value: object, param: str) -> None:
    reply = server.post("/v1/embeddings", {"model": "toy", "input": "a", field: value})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (400, "invalid_request_error"), error
    assert error["param"].startswith(param), error
    assert server.free()


def test_no_such_model_and_the_only_dimensions(server: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="other", input="a")
    assert refused.value.code == "model_not_found"
    assert len(client.embeddings.create(model="toy", input="a", dimensions=32).data[0].embedding) == 32


def test_a_key_pays_for_its_tokens(tmp_path: Path) -> None:
    key = ApiKey.of("ann's secret", "ann").model_copy(update={"tokens_per_minute": 30})
    with served(toy_engine.engine(name="toy"), tmp_path, place={"api_keys": (key,)}) as up:
        body, opens = {"model": "toy", "input": "a" * 40}, "Bearer ann's secret"
        replies = [up.post("/v1/embeddings", body, authorization=opens) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [200, 429]


def test_beside_replies_that_go_on(server: Served) -> None:
    """A batch of embeddings and rows without hidden states share ticks, and neither feels it."""
    body = {"model": "toy", "prompt": "The pump", "max_tokens": 12, "temperature": 0}
    alone = server.post("/v1/completions", body).json()["choices"][0]["text"]
    engine = toy_engine.engine()
    block = engine.block()
    out = engine.forward([Row(View(block), ids=ids(TEXTS[2]))], hidden=True, every=True)
    assert out.every_hidden is not None
    assert out.every_hidden[0].shape == (len(ids(TEXTS[2])), 32)
    assert torch.equal(out.every_hidden[0][-1], out.hidden[0])  # type: ignore[index]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    found: list[list[float]] = []
    thread = threading.Thread(
        target=lambda: found.extend(
            item.embedding for item in client.embeddings.create(model="toy", input=TEXTS * 4).data
        )
    )
    thread.start()
    replies = together(server, [body] * 6)
    thread.join()
    client.close()
    assert {reply.json()["choices"][0]["text"] for reply in replies} == {alone}
    for text, line in zip(TEXTS * 4, found, strict=True):
        np.testing.assert_allclose(line, expected(text), atol=1e-6)
