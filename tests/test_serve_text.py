"""Text at its edges through ``/v1/completions`` and chat: spaces, parts of characters, echoes and where tokens begin.

A tiny random model with vocabularies in the form of Llama 2, Gemma and Llama 3 behind a real server. Whole and streamed
replies must be one text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM

from kvorum import Engine
from kvorum.engine.text import encode
from serving import Served, served
from vocabularies import ALL

NAMES = ["llama2", "gemma", "llama3"]
PROMPTS = ["The capital is", "Hi 🫠 there, so", "  two spaces", "größer 日本", "the</s>"]


def model(vocab: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    made = LlamaForCausalLM(config)
    made.eval()
    return made


@pytest.fixture(scope="module", params=NAMES)
def up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Any]]:
    tokenizer = ALL[request.param]
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    engine = Engine(model(len(tokenizer)), tokenizer, kv_tokens=4096, page_size=4, name="tiny")
    with served(engine, tmp_path_factory.mktemp("store")) as server:
        yield server, tokenizer


def whole(server: Served, **body: Any) -> dict[str, Any]:
    reply = server.post(
        "/v1/completions", {"model": "tiny", "max_tokens": 24, "temperature": 1.5, "logprobs": 3, **body}
    )
    assert reply.status_code == 200, reply.text
    return dict(reply.json()["choices"][0])


def streamed(server: Served, **body: Any) -> dict[str, Any]:
    """The parts of a stream put together."""
    text = ""
    logprobs: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    asked = {"model": "tiny", "max_tokens": 24, "temperature": 1.5, "logprobs": 3, "stream": True, **body}
    with server.http.stream("POST", "/v1/completions", json=asked) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["text"]
                    for name, values in (choice["logprobs"] or {}).items():
                        logprobs[name] += values
    return {"text": text, "logprobs": logprobs}


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_whole_and_streamed_are_one_text(up: tuple[Served, Any], prompt: str, echo: bool) -> None:
    server, _ = up
    for seed in range(2):
        once = whole(server, prompt=prompt, echo=echo, seed=seed)
        parts = streamed(server, prompt=prompt, echo=echo, seed=seed)
        assert parts["text"] == once["text"]
        assert parts["logprobs"] == once["logprobs"]
        if echo:
            assert once["text"].startswith(prompt)
            without = whole(server, prompt=prompt, seed=seed)
            assert once["text"] == prompt + without["text"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_offsets_are_places_in_the_text(up: tuple[Served, Any], prompt: str) -> None:
    server, _ = up
    found = whole(server, prompt=prompt, echo=True, seed=1)
    text, tokens, offsets = found["text"], found["logprobs"]["tokens"], found["logprobs"]["text_offset"]
    assert tokens[0] == "<s>"
    assert offsets[:2] == [0, 0]
    assert offsets == sorted(offsets)
    for token, at in list(zip(tokens, offsets, strict=True))[2:]:
        if not token.startswith("bytes:") and token not in ("<s>", "</s>"):
            assert text[at : at + len(token)] == token


def test_parts_of_a_character_are_bytes_and_entries_of_their_own(up: tuple[Served, Any]) -> None:
    server, tokenizer = up
    ids = encode(tokenizer, "x🫠")
    found = whole(server, prompt=ids, echo=True, max_tokens=1)["logprobs"]
    parts = [token for token in found["tokens"][: len(ids)] if token.startswith("bytes:")]
    assert len(parts) >= 2
    assert len(set(found["top_logprobs"][1])) == 3
    spelled = b"".join(bytes.fromhex(token[6:].replace("\\x", "")) for token in parts)
    assert spelled.decode() == "🫠"
    reply = server.post(
        "/v1/chat/completions",
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 40,
            "temperature": 2,
            "logprobs": True,
            "top_logprobs": 5,
        },
    ).json()["choices"][0]
    entries = reply["logprobs"]["content"]
    assert all(isinstance(entry["bytes"], list) for entry in entries)
    joined = b"".join(bytes(entry["bytes"]) for entry in entries if entry["token"] not in ("<s>", "</s>"))
    assert joined.decode("utf-8", "replace") == reply["message"]["content"]


def test_a_space_before_the_reply_is_in_it(up: tuple[Served, Any]) -> None:
    server, _ = up
    for seed in range(8):
        found = whole(server, prompt="The capital is", max_tokens=1, seed=seed, temperature=1)
        token = found["logprobs"]["tokens"][0]
        if not token.startswith("bytes:") and token not in ("<s>", "</s>"):
            assert found["text"] == token
