"""Ids to text as they come: what is told piece by piece is what all of them together spell."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from kvorum.engine.text import needed
from kvorum.models.token_bytes import compiled, token_bytes
from kvorum.models.tokenizer import Tokenizer

_CONTEXT = 6
"""Tokens before a new one that are decoded with it at least, where tokens have no bytes; up to twice as many."""
_REPLACEMENT = "\ufffd"


class Detokenizer:
    """Turns a growing list of ids into text, piece by piece; a character that is not whole yet waits for the rest.

    Special tokens have no text, or the one they are written with if ``special`` or among ``show``; latent steps have
    none. ``before`` are the ids that stand before the text, if it goes on from them: SentencePiece writes a space
    before a text's first word that must be left out there and nowhere else. Bytes that are no character come out as
    U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer | None, before: Iterable[int] = (), *, special: bool = False) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._table = None if tokenizer is None else token_bytes(tokenizer)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.show: frozenset[int] = frozenset()
        """Special tokens whose text is told all the same: marks that a reader needs."""
        self._begun = False
        self._ids: list[int] = []  # from some before those whose text has been told on; only where there are no bytes
        self._read, self._before = 0, ""  # how many of them it has been told of; their text
        self.skip(before)

    def step(self, token: int) -> str:
        """The text that ``token`` adds, with what waited."""
        if self._tokenizer is None or token < 0:
            return ""
        if not self._special and token in self.show:
            spelled_out = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            return self.flush() + spelled_out
        if self._table is None:
            return self._window(token)
        if not self._special and token in self._table.special:
            return ""
        spelled = self._table[token] if self._begun else self._table.first(token)
        self._begun = self._begun or bool(self._table[token])
        return self._utf8.decode(spelled)

    def skip(self, ids: Iterable[int]) -> None:
        """The text goes on behind ``ids``, whose own text is not told."""
        if self._table is None:
            for token in ids:
                self.step(token)
            self.flush()
            return
        self._utf8.reset()
        kept = (self._table[token] for token in ids if self._special or token not in self._table.special)
        self._begun = self._begun or any(kept)  # the first word says it: a long prompt is not spelled

    def cuts(self, token: int) -> bool:
        """Whether a character that waits stays cut, since ``token`` begins another one."""
        first = b"" if self._table is None or token < 0 else self._table[token][:1]
        return bool(self._utf8.getstate()[0]) and bool(first) and not 0x80 <= first[0] < 0xC0

    def all(self, ids: Iterable[int]) -> str:
        """The whole text of ``ids``."""
        if self._table is None and self._tokenizer is not None:
            return self._decode([token for token in ids if token >= 0])
        return "".join(map(self.step, ids)) + self.flush()

    def flush(self) -> str:
        """What still waits, as the text ends here: U+FFFD for a character that stays cut."""
        if self._table is not None:
            return self._utf8.decode(b"", final=True)
        if not self._ids:
            return ""
        text = self._decode(self._ids)
        piece, self._read, self._before = text[len(self._before) :], len(self._ids), text
        return piece

    def _window(self, token: int) -> str:
        """From the texts of the last ids without and with the new one: they differ by what it adds."""
        if self._read >= 2 * _CONTEXT:
            self._forget()
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(_REPLACEMENT) and len(self._ids) - self._read < 8:
            return ""
        piece, self._read, self._before = text[len(self._before) :], len(self._ids), text
        return piece

    def _forget(self) -> None:
        """Drop ids from the front, up to one that a text can begin with."""
        for kept in range(_CONTEXT, self._read):
            ids = self._ids[self._read - kept :]
            before = self._decode(ids[:kept])
            if before and not before.startswith(_REPLACEMENT):
                self._ids, self._read, self._before = ids, kept, before
                return

    def _decode(self, ids: Sequence[int]) -> str:
        tokenizer = needed(self._tokenizer)
        inner = compiled(tokenizer)
        if inner is not None:
            return inner.decode(list(ids), skip_special_tokens=not self._special)
        return tokenizer.decode(ids, skip_special_tokens=not self._special, clean_up_tokenization_spaces=False)


def decode(tokenizer: Tokenizer | None, ids: Iterable[int], *, special: bool = False) -> str:
    """Ids to text without latent steps, and without special tokens unless ``special``. Raises BadRequest."""
    return Detokenizer(needed(tokenizer), special=special).all(ids)
