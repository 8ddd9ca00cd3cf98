"""Grammars compiled for one engine's vocabulary, and kept.

A grammar is compiled once; every text gets a copy of what came of it. Compiling takes a millisecond as a rule and is
bounded: by the library's own limits, and by a deadline behind which the caller gets an error.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from copy import copy
from functools import cached_property, partial

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from tokenizers import Tokenizer as Compiled

from kvorum.engine.text import needed
from kvorum.errors import BadRequest
from kvorum.models.tokenizer import Tokenizer
from kvorum.sampling.grammar import Grammar
from kvorum.sampling.grammar_limits import LIMITS, beyond
from kvorum.sampling.matcher import Matcher, compiled

KEPT = 64
"""How many compiled grammars are kept; the one that was not used for longest goes first."""
_STEP = 1_000_000
"""Expressions that a grammar's lexer may make for one token; the tools of two real MCP servers need more than 200,000,
which is the library's own."""


class Grammars:
    """The grammars of one engine. ``vocab``: how many ids its logits have; ``ends``: those that end a text."""

    def __init__(self, tokenizer: Tokenizer | None, vocab: int, ends: frozenset[int]) -> None:
        self._tokenizer, self.vocab = tokenizer, vocab
        self.ends = frozenset(end for end in ends if end < vocab)
        self._kept: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    @cached_property
    def words(self) -> LLTokenizer:
        """The tokenizer as the library reads it; made once, for a large one takes a second.

        Raises:
            BadRequest: its tokens' bytes are not known, for it is none of the `tokenizers` package; or there is no end.
        """
        tokenizer = needed(self._tokenizer)
        held = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(held, Compiled):
            raise BadRequest("A grammar needs a fast tokenizer of transformers; this engine's is none.")
        if not self.ends:
            raise BadRequest(
                "A grammar needs a model with an end token; neither its configuration nor its tokenizer has."
            )
        size = max(self.vocab, 1 + max(tokenizer.get_vocab().values()))
        if held.padding or held.truncation:
            held = copy(held)  # they are its owner's
            held.no_padding()
            held.no_truncation()
        return LLTokenizer(held.to_str(), n_vocab=size, eos_token=sorted(self.ends))

    def matcher(self, grammar: Grammar) -> Matcher:
        """A matcher at the beginning of a text under ``grammar``.

        Raises:
            BadRequest: the grammar cannot be compiled, or not within the limits; the message says why.
        """
        return self._begun(grammar, self._kept.get(grammar) or self._within_time(grammar))

    async def prepare(self, grammar: Grammar) -> Matcher:
        """As ``matcher``; other coroutines go on while it is compiled, which may take up to the limit ``seconds``."""
        inner = self._kept.get(grammar)
        return self._begun(grammar, await asyncio.to_thread(self._within_time, grammar) if inner is None else inner)

    def _begun(self, grammar: Grammar, inner: LLMatcher) -> Matcher:
        """Keep what was compiled, and begin a text under it."""
        self._kept[grammar] = inner
        self._kept.move_to_end(grammar)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return Matcher(grammar, inner.deep_copy(), self.ends, self.words.vocab_size)

    def _within_time(self, grammar: Grammar) -> LLMatcher:
        words, done = self.words, Future[LLMatcher]()
        # No daemon: a process that ended in the middle of the library's work would crash in its last moment.
        threading.Thread(target=_settle, args=(done, partial(self._compile, grammar, words))).start()
        try:
            return done.result(LIMITS.seconds)
        except TooLate:
            raise beyond("seconds", "it takes longer to compile") from None

    def _compile(self, grammar: Grammar, words: LLTokenizer) -> LLMatcher:
        limits = LLParserLimits(
            max_lexer_states=LIMITS.states,
            max_grammar_size=LIMITS.symbols,
            step_lexer_fuel=_STEP,
            verbose_errors=False,
        )
        mark = words.tokenize_str(grammar.mark, parse_special=True) if grammar.mark else []
        special = mark[0] if len(mark) == 1 and words.is_special_token(mark[0]) else None
        return compiled(grammar.rules(special), lambda rules: LLMatcher(words, rules, log_level=0, limits=limits))


def _settle(done: Future[LLMatcher], make: Callable[[], LLMatcher]) -> None:
    """``done`` gets what ``make`` returns or raises."""
    try:
        done.set_result(make())
    except BaseException as error:
        done.set_exception(error)
