"""``suffix``: filling in between two texts with a model's own marks; what ``/v1/models`` says that a model can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import toy_engine
from kvorum import Engine
from kvorum.serve.infill import infill_ids, infill_marks
from serving import Served, served

MARKS = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]


def tokenizer() -> Any:
    """The toy's bytes, three of which are marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*MARKS, *alphabet[:-3], *(a + b for a, b in toy_engine.MERGES), "<end>"]
    inner = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=toy_engine.MERGES))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", extra_special_tokens=MARKS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    engine = Engine(toy_engine.model(), tokenizer(), kv_tokens=8192, page_size=4, name="toy")
    with served(engine, tmp_path_factory.mktemp("store")) as up:
        yield up


def test_a_suffix_is_given_with_the_models_marks(server: Served) -> None:
    body = {"model": "toy", "prompt": "def f(x):", "suffix": "return y", "max_tokens": 8, "temperature": 0}
    reply = server.post("/v1/completions", body)
    assert reply.status_code == 200, reply.text
    ids = infill_ids(tokenizer(), infill_marks(tokenizer(), 266) or (), "def f(x):", "return y")
    assert [ids[0], ids[10], ids[-1]] == [0, 1, 2]
    same = server.post("/v1/completions", {**body, "prompt": ids, "suffix": None}).json()
    assert reply.json()["choices"][0]["text"] == same["choices"][0]["text"]
    assert reply.json()["usage"]["prompt_tokens"] == len(ids)
    for wrong in ({"echo": True}, {"prompt": ["a", "b"]}, {"model": "toy:solo"}):
        refused = server.post("/v1/completions", {**body, **wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "suffix"), refused.text


@pytest.mark.forward
def test_a_model_without_marks(tmp_path: Any) -> None:
    with served(toy_engine.engine(name="toy"), tmp_path) as up:
        reply = up.post("/v1/completions", {"model": "toy", "prompt": "a", "suffix": "b"})
        assert reply.status_code == 400
        assert "infill" not in up.http.get("/v1/models/toy").json()["capabilities"]


def test_models_say_what_they_can(server: Served) -> None:
    plain, *teams = server.http.get("/v1/models").json()["data"]
    assert plain["max_model_len"] == 8192
    assert plain["meta"] == {"n_ctx_train": 16384, "n_vocab": 266}
    assert {"chat", "tools", "response_format", "infill"} <= set(plain["capabilities"])
    assert all("infill" not in team["capabilities"] for team in teams)
