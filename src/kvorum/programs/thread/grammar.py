"""The task document as a JSON schema, and the decoder that keeps a worker inside it.

The grammar is llguidance's: one wheel for every CPython from 3.9 on, without dependencies, which reads the tokenizers
of transformers 5 and tells which tokens are forced. Besides the schema it holds the model to one rule of ours: the
square brackets of a ``subtasks`` list are tokens of their own, so that what it holds can be cut out at token edges.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from kvorum.engine.text import needed
from kvorum.errors import BadRequest, need
from kvorum.harness.tools import closed_object
from kvorum.jsontypes import Json, JsonObject
from kvorum.models.tokenizer import Tokenizer


def schema(
    levels: int, *, tools: Sequence[dict[str, Json]], width: int, chars: int, parallel: bool, root: bool = True
) -> dict[str, Json]:
    """The schema of a document (``{reasoning: [task, ...], answer}``) or, not ``root``, of one task.

    Field order is generation order: title, thought, tooluse, plan, subtasks, conclusion. ``levels`` of subtasks under
    the first tasks, at most ``width`` tasks in a list, ``chars`` characters in a text.
    """
    text: dict[str, Json] = {"type": "string", "maxLength": chars}
    defs: dict[str, Json] = {}
    for level in range(levels + 1):
        fields: dict[str, Json] = {"title": text, "thought": text}
        if tools:
            fields["tooluse"] = {"anyOf": list(tools)}
        if level:
            if parallel:
                fields["plan"] = _array(text, width)
            fields["subtasks"] = _array({"$ref": f"#/$defs/task{level - 1}"}, width)
        fields["conclusion"] = text
        defs[f"task{level}"] = closed_object(fields, ["thought", "conclusion"])
    if not root:
        return {"$ref": f"#/$defs/task{levels}", "$defs": defs}
    tasks = _array({"$ref": f"#/$defs/task{levels}"}, width)
    return {**closed_object({"reasoning": tasks, "answer": text}, ["reasoning", "answer"]), "$defs": defs}


def _array(items: JsonObject, most: int) -> JsonObject:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


class Vocabulary:
    """A tokenizer as bytes: what each id adds, text to ids without special tokens, and which ids hide a bracket."""

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        llguidance = need("llguidance.hf", "thread", "thread")
        try:
            self.inner = llguidance.from_tokenizer(tokenizer, n_vocab=vocab)
        except ValueError as error:
            raise BadRequest(f"thread needs a fast tokenizer to constrain the decoding: {error}") from error
        self.size = vocab
        self.pieces = [bytes(self.inner.decode_bytes([token])) for token in range(vocab)]
        hiding = {True: re.compile(rb'"[^"]*[\[\]]'), False: re.compile(rb"(?s)[\[\]].|.[\[\]]")}
        self.hides_bracket = {
            in_string: torch.tensor([found.search(piece) is not None for piece in self.pieces])
            for in_string, found in hiding.items()
        }
        """Bool ``[vocab]``: ids that hold a bracket of JSON and more, when picked inside or outside a string."""

    def encode(self, text: str | bytes) -> list[int]:
        """Text to ids; what looks like a special token is plain text; brackets of JSON are tokens of their own."""
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        parts = re.findall(rb'"(?:[^"\\]|\\.)*"?|[\[\]]|[^"\[\]]+', data)
        ids: list[int] = []
        held = b""
        for part in [*parts, b""]:
            if part in (b"[", b"]", b""):
                ids += self.tokens(held) + self.tokens(part)
                held = b""
            else:
                held += part
        return ids

    def tokens(self, data: bytes) -> list[int]:
        """Bytes to ids as they stand; a special token that is written out becomes several plain ones."""
        ids: list[int] = []
        for token in self.inner.tokenize_bytes(data) if data else []:
            piece = self.pieces[token]
            special = self.inner.is_special_token(token) and len(piece) > 1
            ids += self.tokens(piece[:1]) + self.tokens(piece[1:]) if special else [int(token)]
        return ids


_vocabularies: WeakKeyDictionary[Tokenizer, Vocabulary] = WeakKeyDictionary()


def vocabulary(tokenizer: Tokenizer | None, vocab: int) -> Vocabulary:
    """The tokenizer's vocabulary; made once, for it takes a second."""
    tokenizer = needed(tokenizer)
    known = _vocabularies.get(tokenizer)
    if known is None or known.size != vocab:
        known = _vocabularies[tokenizer] = Vocabulary(tokenizer, vocab)
    return known


class Grammar:
    """Where one worker stands in its schema. It follows the log, never the live context: pruning does not rewind it."""

    def __init__(self, words: Vocabulary, rules: dict[str, Json]) -> None:
        from llguidance import LLMatcher

        self.words = words
        text = LLMatcher.grammar_from_json_schema(rules, overrides={"whitespace_flexible": False})
        self._matcher = LLMatcher(words.inner, text, log_level=0)
        if self._matcher.is_error():
            raise BadRequest(f"The task schema cannot be decoded: {self._matcher.get_error()}")

    @property
    def stuck(self) -> bool:
        """No token can follow: something was taken that the schema does not have."""
        return bool(self._matcher.is_error())

    def take(self, ids: Sequence[int]) -> None:
        """Go on over ``ids``, picked or inserted."""
        if not self._matcher.is_stopped() or self._matcher.is_error():
            self._matcher.consume_tokens(list(ids))

    def allowed(self, in_string: bool, uncut: bool) -> Tensor:
        """Bool ``[vocab]``: what may come next; see ``Reader`` for what is asked."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self.words.size].astype(bool))
        if uncut:
            return mask
        clean = mask & ~self.words.hides_bracket[in_string]
        return clean if bool(clean.any()) else mask

    def forced(self, uncut: bool) -> list[int]:
        """The ids that must come next; brackets as tokens of their own unless ``uncut``."""
        if uncut:
            return [int(token) for token in self._matcher.compute_ff_tokens()]
        ids: list[int] = []
        for token in self._matcher.compute_ff_tokens():
            for part in re.split(rb"([\[\]])", self.words.pieces[token]):
                ids += [token] if part == self.words.pieces[token] else self.words.tokens(part)
        return ids
