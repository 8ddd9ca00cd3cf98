"""A matcher: where one text stands in its grammar, which tokens may follow, and which must.

A matcher belongs to the stream of tokens that writes the text and follows it, token by token. It has no other state:
one that is given the same tokens, in whatever parts, stands in the same place. Masks of several texts are made together
and in parallel, beside whatever else is computed meanwhile (``begin_masks``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from llguidance import LLExecutor, LLMatcher

from kvorum.errors import BadRequest, GrammarError, GrammarTooCostly, GrammarUnwritable
from kvorum.sampling.grammar import Grammar
from kvorum.sampling.sampling import Bits


class Matcher:
    """Follows one text in ``grammar``. Made by ``engine.grammars``, from the library's matcher at the beginning."""

    def __init__(self, grammar: Grammar, inner: LLMatcher, ends: frozenset[int], vocab: int) -> None:
        self.grammar = grammar
        self.ended = False
        """Whether an end token was taken: nothing may follow."""
        self._inner, self._ends, self._vocab = inner, ends, vocab

    @property
    def may_end(self) -> bool:
        """Whether the text so far is one of the grammar's."""
        return self.ended or (self._inner.is_accepting() and not self._inner.is_error())

    @property
    def complete(self) -> bool:
        """Whether it is, and nothing but an end can follow."""
        return self.ended or (self._inner.is_stopped() and self.may_end)

    def take(self, ids: Iterable[int]) -> None:
        """Go on over ``ids``. Taking X, then Y, is taking XY. An end token is taken where the text may end.

        Raises:
            GrammarError: a token that may not follow. Those before it are taken, nothing else has changed.
        """
        for token in ids:
            if token in self._ends and not self.ended:
                self.ended = self.may_end
                if not self.ended:
                    raise GrammarError(f"Token {token} ends a text, and the grammar's is not whole.")
            elif self.complete or self._inner.validate_tokens([token]) != 1 or not self._inner.consume_token(token):
                raise self._why(token)

    def _why(self, token: int) -> GrammarError:
        if self._inner.is_error():
            why = f"The grammar cannot be followed any further: {reason(self._inner.get_error())}."
            return GrammarTooCostly(why)
        if self.complete:
            return GrammarError(f"Token {token} cannot follow: the grammar's text is complete.")
        return GrammarError(f"Token {token} is none that the grammar has here.")

    def restart(self) -> None:
        """Back to the beginning, for another text."""
        self._inner.reset()
        self.ended = False

    def forced(self) -> list[int]:
        """The ids that must come next, as the tokenizer writes them, as far as that is certain; often none.

        Until they are taken they are also all that ``bits`` allows, one by one: feeding them at once changes no text.
        The last token before a choice is held back where it could be written together with what is chosen.
        """
        if self.ended or self.complete:
            return []
        ids = [int(token) for token in self._inner.compute_ff_tokens()]
        return ids[: self._inner.validate_tokens(ids)]  # a tokenizer leaves out the bytes that it has no token for

    def follows(self, ids: Sequence[int]) -> int:
        """How many of ``ids``, from the first on, may follow. An end token counts as none that may."""
        return 0 if self.ended or self.complete else int(self._inner.validate_tokens(list(ids)))

    def bits(self) -> Bits:
        """Which ids may come next (see ``Draw.allowed``): end tokens where the text may end, none behind its end.

        Raises:
            GrammarTooCostly: the grammar cannot be followed any further within its limits.
            GrammarUnwritable: no token of the vocabulary writes what must come next.
        """
        (found,) = _fill([self])
        if isinstance(found, GrammarError):
            raise found
        return found

    def _mask(self, bits: Bits) -> Bits | GrammarUnwritable:
        """What may come next, of what the library says of it.

        Where the text is forced, the library allows the one token that the tokenizer writes it with. A tokenizer that
        has none for some byte (SmolLM2's has none for those that rare characters begin with) leaves the byte out, and
        what it writes cannot follow.
        """
        count = int(np.bitwise_count(bits).sum())
        if count == 1:
            (only,) = np.unpackbits(bits, bitorder="little").nonzero()[0]
            if self._inner.validate_tokens([int(only)]) != 1:
                bits[:], count = 0, 0
        if not count and not self.may_end:
            return GrammarUnwritable(
                "The grammar wants characters that this model's vocabulary has no tokens for; leave them out of it, or "
                "take another model."
            )
        return self._with_ends(bits)

    def _with_ends(self, bits: Bits) -> Bits:
        """End tokens in ``bits`` exactly where the text may end, also one that the vocabulary spells as text."""
        may = self.may_end and not self.ended
        for end in self._ends:
            mark = np.uint8(1 << end % 8)
            bits[end // 8] = bits[end // 8] | mark if may else bits[end // 8] & ~mark
        return bits


Masks = Callable[[], Sequence[Bits | GrammarError]]
"""Waits for masks that are being made: of each text its mask, or why there is none."""


def begin_masks(matchers: Sequence[Matcher]) -> Masks:
    """Begin to make the masks of these texts, in a thread of their own; no matcher may be touched until they are there.

    The library works without Python's lock.
    """
    return _beside().submit(_fill, matchers).result


def _fill(matchers: Sequence[Matcher]) -> list[Bits | GrammarError]:
    width = -(-max(matcher._vocab for matcher in matchers) // 32)
    table = np.zeros((len(matchers), width), dtype=np.int32)
    live = [(matcher._inner, at) for at, matcher in enumerate(matchers) if not matcher.ended]
    if live:
        _executor().unsafe_compute_mask_ptr(live, table.ctypes.data, 4 * width, len(matchers))
    found: list[Bits | GrammarError] = []
    for row, matcher in zip(table.view(np.uint8), matchers, strict=True):
        error = matcher._inner.is_error()
        found.append(matcher._why(-1) if error else matcher._mask(row))
    return found


@functools.cache
def _beside() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="kvorum-masks")


@functools.cache
def _executor() -> LLExecutor:
    return LLExecutor()


def reason(said: str) -> str:
    """What the library says of an error, as one line without its own state."""
    text = said.partition("<non-verbose/>")[0].partition("<state>")[0]
    return " ".join(text.split()).removesuffix(".")[:300] or "it gives no reason"


def compiled(rules: str, make: Callable[[str], LLMatcher]) -> LLMatcher:
    """The library's matcher of ``rules``, made by ``make``, with its first mask made too.

    Raises:
        BadRequest: the library cannot compile them, or no text satisfies them.
    """
    inner = make(rules)
    if not inner.is_error():
        inner.compute_bitmask()
    if inner.is_stopped() and not inner.is_accepting() and (not inner.is_error() or "NoExtension" in inner.get_error()):
        raise BadRequest("The grammar cannot be used: there is no text that satisfies it.")
    if inner.is_error():
        raise BadRequest(f"The grammar cannot be used: {reason(inner.get_error())}.")
    return inner
