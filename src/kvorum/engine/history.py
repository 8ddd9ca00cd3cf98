"""What a row's penalties look back on: the ids that its view shows, and what breaks a repeat off, as ids."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from kvorum.engine.text import encode
from kvorum.kv import View
from kvorum.models.token_bytes import token_bytes
from kvorum.models.tokenizer import Tokenizer
from kvorum.sampling.sampling import Breakers, History, Sampling

_LONGEST_TEXT, _LONGEST_TAIL = 40, 20
"""llama.cpp's bounds: characters of a breaker, and ids behind its first one."""

_KNOWN: WeakKeyDictionary[Tokenizer, dict[tuple[str, ...], Breakers]] = WeakKeyDictionary()


def history(
    sampling: Sampling, view: View, fed: Sequence[int], written: Sequence[int], tokenizer: Tokenizer | None
) -> History | None:
    """For a draw behind ``fed`` ids at the end of ``view``, by a row that has ``written`` so much; None: not needed.

    Without a tokenizer no text breaks a repeat off.
    """
    if not sampling.looks_back:
        return None
    texts = tuple(sampling.dry_sequence_breakers) if sampling.dry_multiplier and tokenizer is not None else ()
    broken = breakers(tokenizer, texts) if texts and tokenizer is not None else {}
    return History([*view.ids, *fed], list(written), broken)


def breakers(tokenizer: Tokenizer, texts: tuple[str, ...]) -> Breakers:
    """The ways in which the ids of a text may hold one of ``texts``, as llama.cpp finds them; remembered.

    A token that holds it whole does; one that ends with its beginning does if the ids of the rest follow.
    """
    known = _KNOWN.setdefault(tokenizer, {})
    if texts not in known:
        known[texts] = _breakers(tokenizer, [text[:_LONGEST_TEXT] for text in texts])
    return known[texts]


def _breakers(tokenizer: Tokenizer, texts: Sequence[str]) -> Breakers:
    found: dict[int, list[tuple[int, ...]]] = {}
    table, vocabulary = token_bytes(tokenizer), sorted(tokenizer.get_vocab().values())
    for text in texts:
        if table is None:  # the bytes of single tokens are not known: the text as it is encoded by itself
            ids = encode(tokenizer, text)
            if ids:
                found.setdefault(ids[0], []).append(tuple(ids[1 : 1 + _LONGEST_TAIL]))
            continue
        whole = text.encode()
        tails = {cut: _tail(tokenizer, whole[cut:]) for cut in range(1, len(whole))}
        for token in vocabulary:
            word = table[token]
            if whole in word:
                _add(found, token, ())
            for cut, tail in tails.items():
                if tail is not None and word.endswith(whole[:cut]) and whole not in word:
                    _add(found, token, tail)
    return found


def _tail(tokenizer: Tokenizer, rest: bytes) -> tuple[int, ...] | None:
    """The ids of a breaker's rest; None where it begins within a character."""
    try:
        return tuple(encode(tokenizer, rest.decode())[:_LONGEST_TAIL])
    except UnicodeDecodeError:
        return None


def _add(found: dict[int, list[tuple[int, ...]]], token: int, tail: tuple[int, ...]) -> None:
    tails = found.setdefault(token, [])
    if tail not in tails:
        tails.append(tail)
