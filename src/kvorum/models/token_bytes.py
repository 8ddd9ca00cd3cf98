"""What each token of a vocabulary spells, in bytes.

Text that comes token by token is put together without loss only from bytes: a character may lie across several
tokens. A tokenizer says in its ``decoder`` how it spells (the `tokenizers` package, src/decoders): byte-level BPE, or
SentencePiece with or without byte fallback and with or without a space before the first word. Decoders that take each
token for itself are read here. For the others (WordPiece, CTC, tokenizers written in Python) there are no bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Protocol, TypedDict
from weakref import WeakKeyDictionary

from kvorum.models.light_tokenizer import LightTokenizer
from kvorum.models.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class _Decoder(TypedDict, total=False):
    """A decoder as tokenizer.json writes it."""

    type: str
    decoders: list[_Decoder]
    pattern: dict[str, str]
    content: str
    start: int
    stop: int
    replacement: str
    prepend_scheme: str


class _State(Protocol):
    def __getstate__(self) -> bytes: ...


class Compiled(Protocol):
    """A tokenizer of the `tokenizers` package, by what is used of it."""

    @property
    def decoder(self) -> _State | None:
        """How it puts tokens together."""
        ...

    def id_to_token(self, id: int) -> str | None:
        """A token as the vocabulary writes it."""
        ...

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Ids to text."""
        ...


def compiled(tokenizer: Tokenizer) -> Compiled | None:
    """The compiled tokenizer within one of transformers, if decoding by it is all that its ``decode`` does.

    What transformers wraps around it takes twice as long as the decoding.
    """
    if isinstance(tokenizer, LightTokenizer):
        return tokenizer.backend_tokenizer
    home = _home(type(tokenizer))
    return None if home is None or "decode" in vars(tokenizer) else home.__get__(tokenizer)


@cache
def _home(kind: type) -> property | None:
    found = getattr(kind, "backend_tokenizer", None)
    outer, inner = (getattr(getattr(kind, name, None), "__module__", "") for name in ("decode", "_decode"))
    plain = outer.startswith("transformers.") and inner == "transformers.tokenization_utils_tokenizers"
    return found if isinstance(found, property) and plain else None


class TokenBytes:
    """The bytes of each token of one tokenizer, and whether a token is special."""

    def __init__(self, tokenizer: Tokenizer, inner: Compiled, spell: Callable[[str], bytes], strip: str) -> None:
        self.special = frozenset(tokenizer.all_special_ids)
        self._inner, self._spell, self._strip = inner, spell, strip
        self._known: dict[int, bytes] = {}

    def __getitem__(self, token: int) -> bytes:
        """The bytes of a token, special ones too; none for a latent step or an id without a token."""
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._spell(self._text(token))
        return found

    def first(self, token: int) -> bytes:
        """The bytes of a token that a text begins with: SentencePiece writes a space there that is not in the text."""
        text = self._text(token)
        if self._strip == " ":
            return self[token].removeprefix(b" ")
        return self._spell(text.replace(self._strip, "") if self._strip else text)

    def _text(self, token: int) -> str:
        return (self._inner.id_to_token(token) or "") if token >= 0 else ""


_TABLES: WeakKeyDictionary[Tokenizer, TokenBytes | None] = WeakKeyDictionary()


def token_bytes(tokenizer: Tokenizer) -> TokenBytes | None:
    """The bytes of the tokenizer's tokens; None where its decoder does not take each token for itself."""
    inner = compiled(tokenizer)
    if inner is None or inner.decoder is None:
        return None
    if tokenizer not in _TABLES:
        rule = _rule(json.loads(inner.decoder.__getstate__()))
        _TABLES[tokenizer] = None if rule is None else TokenBytes(tokenizer, inner, *rule)
    return _TABLES[tokenizer]


def _rule(decoder: _Decoder) -> tuple[Callable[[str], bytes], str] | None:
    """How a token is spelled, and what a text's first one loses at its front: a space, or all its space marks."""
    if decoder["type"] == "ByteLevel":
        return _byte_level, ""
    if decoder["type"] == "Metaspace":
        mark = decoder["replacement"]
        drop = mark if decoder.get("prepend_scheme", "always") != "never" else ""
        return lambda text: text.replace(mark, " ").encode(), drop
    return _sentencepiece(decoder["decoders"]) if decoder["type"] == "Sequence" else None


def _sentencepiece(steps: list[_Decoder]) -> tuple[Callable[[str], bytes], str] | None:
    """Texts replaced in each token, then bytes, then all joined and a space at the front stripped; each may lack."""
    replaced, fallback, kinds = [], False, [step["type"] for step in steps]
    if kinds in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        return _byte_level, ""
    while steps and steps[0]["type"] == "Replace" and "String" in steps[0]["pattern"]:
        replaced.append((steps[0]["pattern"]["String"], steps[0]["content"]))
        steps = steps[1:]
    if steps and steps[0]["type"] == "ByteFallback":
        fallback, steps = True, steps[1:]
    front = [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    if steps not in ([], front[:1], front):
        return None

    def spell(text: str) -> bytes:
        for old, new in replaced:
            text = text.replace(old, new)
        byte = _BYTE.fullmatch(text) if fallback else None
        return text.encode() if byte is None else bytes([int(byte[1], 16)])

    return spell, " " if steps == front else ""


@cache
def _letters() -> dict[str, int]:
    """GPT-2's letters for bytes: what prints stands for itself, the other bytes for the letters from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}


def _byte_level(text: str) -> bytes:
    letters = _letters()
    return bytes(letters[letter] for letter in text) if all(letter in letters for letter in text) else text.encode()
