"""Ids to text: streamed piece by piece it is the text itself, for every form of tokenizer in use.

Tiny vocabularies made here after the forms of GPT-2, Llama 3, Qwen, StarCoder, Llama 2 (two ways), Mistral, Gemma,
Phi-3, T5, BERT and GPT; texts from all of Unicode by hypothesis. The judge is the tokenizer's own decoding of all ids,
and for byte-level ones the text itself. Also what is not text: cut characters, latent steps, special tokens, texts that
go on from others. The slow test takes 20,000 texts.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvorum.engine.detokenizer import Detokenizer, decode
from kvorum.engine.text import encode
from kvorum.models.token_bytes import token_bytes
from vocabularies import ALL, BYTE_LEVEL, LOSSLESS, SPACED, WORDS

TEXT = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from([*WORDS, " ", "  ", "\n", "🫠", "👩‍👩‍👧", "\ufffd", "<s>", "<|a b|>", "é", "\u0301", "'s"])
    ).map("".join),
)


def streamed(tokenizer: Any, ids: list[int]) -> str:
    words = Detokenizer(tokenizer)
    return "".join(words.step(token) for token in ids) + words.flush()


def check(name: str, text: str) -> None:
    tokenizer = ALL[name]
    ids = encode(tokenizer, text, split_special=True)
    told = streamed(tokenizer, ids)
    assert told == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert told == decode(tokenizer, ids)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXT)
def test_streamed_is_what_the_tokenizer_decodes(name: str, text: str) -> None:
    check(name, text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=20_000 // len(ALL) + 1, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXT)
def test_streamed_is_what_the_tokenizer_decodes_for_20000_texts(name: str, text: str) -> None:
    check(name, text)


@pytest.mark.parametrize("name", LOSSLESS)
@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_comes_back_as_it_went_in(name: str, text: str) -> None:
    tokenizer = ALL[name]
    text = unicodedata.normalize("NFC", text) if name == "qwen" else text
    told = streamed(tokenizer, encode(tokenizer, text, split_special=True))
    assert told == text.replace("▁", " ") if name in ("llama2", "phi3", "gemma") else told == text


@pytest.mark.parametrize("name", BYTE_LEVEL)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_ids_of_a_byte_level_vocabulary_come_out_as_decoded_whole(name: str, data: st.DataObject) -> None:
    tokenizer = ALL[name]
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 2), max_size=40))
    assert streamed(tokenizer, ids) == tokenizer.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


@pytest.mark.parametrize("name", ["llama2", "gemma", "phi3"])
def test_characters_of_four_bytes_in_a_row_come_one_by_one(name: str) -> None:
    tokenizer = ALL[name]
    words = Detokenizer(tokenizer)
    pieces = [words.step(token) for token in encode(tokenizer, "x" + "😀" * 12)]
    assert "".join(pieces) == "x" + "😀" * 12
    assert pieces.count("😀") == 12


@pytest.mark.parametrize("name", ["llama2", "gemma", "gpt2", "llama3"])
def test_a_cut_character_waits_and_comes_as_a_mark_at_the_end(name: str) -> None:
    tokenizer = ALL[name]
    ids = encode(tokenizer, "a😀")[:-1]
    words = Detokenizer(tokenizer)
    assert "".join(map(words.step, ids)) == "a"
    assert words.flush() == "\ufffd"


@pytest.mark.parametrize("name", SPACED)
def test_a_text_that_goes_on_keeps_its_space(name: str) -> None:
    tokenizer = ALL[name]
    prompt, rest = encode(tokenizer, "The capital is"), encode(tokenizer, "Paris")
    assert streamed(tokenizer, rest) == "Paris"
    words = Detokenizer(tokenizer, prompt)
    assert "".join(map(words.step, rest)) == " Paris"


def test_latent_steps_special_tokens_and_ids_without_a_token_have_no_text() -> None:
    for tokenizer in ALL.values():
        ids = encode(tokenizer, "a e")
        end = tokenizer.eos_token_id
        assert isinstance(end, int)
        assert streamed(tokenizer, [-1, ids[0], end, -1, *ids[1:], 100_000, end]) == streamed(tokenizer, ids)
    assert decode(BYTE_LEVEL["gpt2"], [*encode(BYTE_LEVEL["gpt2"], "a"), end], special=True).startswith("a")


def test_which_tokenizers_have_bytes() -> None:
    assert {name for name, tokenizer in ALL.items() if token_bytes(tokenizer) is None} == {"bert", "gpt"}


def test_the_bytes_of_parts_of_a_character_make_it_up() -> None:
    for name in ("gpt2", "llama2", "gemma"):
        table = token_bytes(ALL[name])
        assert table is not None
        ids = encode(ALL[name], "🫠")
        assert len(ids) > 1
        assert b"".join(table[token] for token in ids).decode().strip(" ") == "🫠"
