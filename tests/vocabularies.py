"""Tiny vocabularies in the forms of the tokenizers in use: byte-level BPE, SentencePiece, WordPiece and others."""

from __future__ import annotations

import string
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = [
    "the",
    "capital",
    "of",
    "France",
    "is",
    "Paris",
    "und",
    "größer",
    "日本",
    "🫠",
    "12",
    "a",
    "e",
    "t",
    "in",
    ".",
    ",",
]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]


def wrapped(inner: Tokenizer, *added: str | AddedToken) -> Any:
    inner.add_special_tokens(["<s>", "</s>"])
    inner.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def byte_level(split: str | None = None, *, nfc: bool = False, digits: bool = False) -> Any:
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "a"),
        ("i", "n"),
        ("Ġ", "t"),
        ("ð", "Ł"),
        ("æ", "Ĺ"),
        ("Ĺ", "¥"),
        ("e", "r"),
    ]
    vocab = {piece: at for at, piece in enumerate([*BYTES, *(a + b for a, b in merges)])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    steps += [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    inner.pre_tokenizer = pre_tokenizers.Sequence(steps)
    inner.normalizer = normalizers.NFC() if nfc else None
    inner.decoder = decoders.ByteLevel()
    return wrapped(inner, AddedToken("<|a b|>", normalized=False), "  ", "本")


def sentencepiece(
    normalizer: normalizers.Normalizer | None,
    pre: pre_tokenizers.PreTokenizer | None,
    decoder: decoders.Decoder,
    *added: str | AddedToken,
) -> Any:
    letters = string.ascii_letters
    pieces = ["<unk>", *FALLBACK, "▁", *letters, *(f"▁{word}" for word in WORDS), "th", "he", "▁t", "▁▁"]
    merges = [("t", "h"), ("h", "e"), ("▁", "t"), ("▁", "▁"), ("▁", "a"), ("▁", "e")]
    vocab = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer is not None:
        inner.normalizer = normalizer
    if pre is not None:
        inner.pre_tokenizer = pre
    inner.decoder = decoder
    return wrapped(inner, *added)


def spelled(*, strip: bool) -> decoders.Decoder:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)


def unigram() -> Any:
    pieces = [
        ("<unk>", -9.0),
        *((f"▁{word}", -3.0) for word in WORDS),
        ("▁", -4.0),
        *((c, -6.0) for c in "abcdefghi.,"),
    ]
    inner = Tokenizer(models.Unigram(pieces, 0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    return wrapped(inner)


def wordpiece() -> Any:
    pieces = ["[UNK]", *WORDS, *"abcdefgh", *(f"##{c}" for c in "abcdefgh"), "'", "s", "do", "n", "not", "!", "?"]
    inner = Tokenizer(
        models.WordPiece({piece: at for at, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return wrapped(inner)


def suffixes() -> Any:
    pieces = ["<unk>", *"abcdefgh", *(f"{c}</w>" for c in "abcdefgh."), "th", "the</w>"]
    inner = Tokenizer(
        models.BPE(
            vocab={piece: at for at, piece in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            end_of_word_suffix="</w>",
        )
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.BPEDecoder()
    return wrapped(inner)


PREPEND = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
LLAMA3 = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

BYTE_LEVEL = {
    "gpt2": byte_level(),
    "llama3": byte_level(LLAMA3),
    "qwen": byte_level(LLAMA3.replace("{1,3}", ""), nfc=True),
    "starcoder": byte_level(digits=True),
}
SPACED = {
    "llama2": sentencepiece(PREPEND, None, spelled(strip=True)),
    "llama2-metaspace": sentencepiece(
        None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), spelled(strip=True)
    ),
    "mistral": sentencepiece(
        None, pre_tokenizers.Metaspace(prepend_scheme="always", split=False), decoders.Metaspace()
    ),
    "phi3": sentencepiece(PREPEND, None, spelled(strip=True), AddedToken("<|end|>", rstrip=True, special=True)),
}
UNSPACED = {"gemma": sentencepiece(normalizers.Replace(" ", "▁"), None, spelled(strip=False))}
OTHERS = {"t5": unigram(), "bert": wordpiece(), "gpt": suffixes()}
ALL = BYTE_LEVEL | SPACED | UNSPACED | OTHERS
LOSSLESS = BYTE_LEVEL | UNSPACED | {name: SPACED[name] for name in ("llama2", "phi3")}
