"""Decoding one view as an asynchronous stream of tokens. Streams that run at the same time share ticks."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from kvorum.engine.budget import Ledger
from kvorum.engine.detokenizer import Detokenizer
from kvorum.engine.engine import EngineCore
from kvorum.engine.history import history
from kvorum.engine.row import Cost, Row
from kvorum.errors import BadRequest, NotWritable
from kvorum.kv import Span, View
from kvorum.sampling.reference import likeliest
from kvorum.sampling.sampler import draw
from kvorum.sampling.sampling import Draw, Pick, Sampling

_CONTEXT = 16
"""Tokens before a text that are looked at to tell how it goes on."""


class Token(int):
    """A token id that carries its ``text``, its ``logprob`` (natural, under the model) and why it was the last.

    ``finish`` is None, "end" (an end token), "grammar" (nothing but an end can follow), "stop" (a stop string; ``text``
    ends before it) or "length". ``top`` are the likeliest ids with their logprobs, if asked for, the likeliest first.
    """

    text: str
    logprob: float
    finish: str | None
    top: tuple[Pick, ...]

    def __new__(
        cls, token: int, text: str, logprob: float, finish: str | None = None, top: tuple[Pick, ...] = ()
    ) -> Token:
        made = super().__new__(cls, token)
        made.text, made.logprob, made.finish, made.top = text, logprob, finish, top
        return made

    @property
    def id(self) -> int:
        """The token's id as a plain int, for what must not see the subclass."""
        return int(self)

    def __repr__(self) -> str:
        return f"Token({int(self)}, {self.text!r})"


class DecodingEngine(EngineCore):
    """The core of an engine with ``decode``."""

    async def decode(
        self,
        view: View,
        *,
        ids: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        stop: str | Sequence[str] = (),
        max_tokens: int | None = None,
        stream: int = 0,
        step: int | None = None,
        logits: Tensor | None = None,
        logprobs: bool = True,
        top: int = 0,
        keep: bool = True,
        forced: bool = False,
        begun: Sequence[int] = (),
        show: Iterable[int] = (),
        ledger: Ledger | None = None,
    ) -> AsyncIterator[Token]:
        """Write on at the view's open end and yield each token as it is picked, greedily without a ``sampling``.

        Streams that run at the same time share ticks. Ends after an end token of the model, when a stop string appears
        in the text, when the sampling's grammar is complete, or after ``max_tokens``. By then all yielded tokens are in
        the block. A caller that breaks off earlier leaves the last one unwritten, and forced ones before it.

        Args:
            ids: what to feed first. None goes on from ``logits [vocab]``, or from the last token of the view's block.
            stream: numbers the draws; streams with the same seed, number, steps and logits pick the same tokens.
            step: the number of the first draw. None: how many tokens the block has by then.
            logprobs: whether to tell each token's logprob; without, it is NaN, and sampling takes less time.
            top: how many of the likeliest tokens to tell with each. keep: write the last token to the block, too.
            forced: feed what the grammar forces at once, as prefill, in place of picking it token by token. The tokens
                are the same; the forced ones have no logprob (NaN) and no ``top``.
            begun: ids that stand under the grammar already, for a text that goes on.
            show: special tokens whose text is told, as the marks of calls (``CallForm.shown``); others have no text.
            ledger: where what is spent is added.

        Raises:
            BadRequest: nothing to go on from, or a grammar that cannot be used. GrammarError: one that cannot be
            followed further within its limits. ViewError, OutOfPages: as ``forward``.
        """
        own = view.own
        if own is None:
            raise NotWritable(f"{view} does not end in the open end of a block; put a block last.")
        if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
            raise BadRequest(f"max_tokens={max_tokens} must be a whole number of at least 1.")
        if top < 0:
            raise BadRequest(f"top={top} must be at least 0.")
        if not all(isinstance(mark, str) for mark in ([stop] if isinstance(stop, str) else stop)):
            raise BadRequest(f"stop={stop!r} must be text or a list of texts.")
        stops = [mark for mark in ([stop] if isinstance(stop, str) else stop) if mark]
        ends = self.ends
        sampling = sampling or Sampling()
        seed = self.seed if sampling.seed is None else sampling.seed
        start = len(own) + len(ids or ()) if step is None else step
        detokenizer, held, count = Detokenizer(self.tokenizer, _last(view)), "", 0
        detokenizer.show = frozenset(show)
        written: list[int] = []
        matcher = None if sampling.grammar is None else await self.grammars.prepare(sampling.grammar)
        if matcher is not None:
            matcher.take(begun)

        def asked(fed: Sequence[int] = ()) -> Draw:
            back = history(sampling, view, fed, written, self.tokenizer)
            return Draw(sampling, seed, stream, start + count, logprobs, history=back)

        async def feed(fed: Sequence[int], cost: Cost) -> tuple[Tensor | None, Pick]:
            row, draws = Row(view, ids=fed), [asked(fed)]
            result = await self.scheduler.submit([row], [cost], draws=draws, matchers=[matcher], ahead=True)
            if ledger is not None:
                ledger.add(result.cost)
            return result.output.logits[0] if top else None, result.pick(0)  # else nobody fetches or copies them

        if ids is not None:
            detokenizer.skip(ids)
            logits, choice = await feed(list(ids), Cost(0))
        else:
            logits = own.logits if logits is None else logits
            if logits is None:
                raise BadRequest(f"{own.name} has no token to go on from: pass ids=[...] to feed first.")
            choice = draw(logits, replace(asked(), allowed=None if matcher is None else matcher.bits()))
        unfed: list[int] = []
        due: list[int] = []
        while True:
            unfed.append(choice.id)
            if matcher is not None:
                matcher.take([choice.id])
                due = due or (matcher.forced() if forced else [])
            piece = detokenizer.step(choice.id)
            written.append(choice.id)
            count += 1
            finish = "end" if choice.id in ends else "length" if count == max_tokens else None
            if matcher is not None and matcher.complete:
                finish = finish if finish == "end" else "grammar"
            held += piece + (detokenizer.flush() if finish else "")
            at = min((found for mark in stops if (found := held.find(mark)) >= 0), default=-1)
            if at >= 0:
                finish, ready = "stop", at
            else:
                ready = len(held) if finish else len(held) - _begun(held, stops)
            piece, held = held[:ready], held[ready:]
            # of a forced one the model was not asked
            told = likeliest(logits, top) if top and logits is not None and len(unfed) == 1 else ()
            if logprobs:  # the token is worth the same there, to the last bit, though the sum was taken another way
                told = tuple(choice if one.id == choice.id else one for one in told)
            yield Token(choice.id, piece, choice.logprob, finish, told)
            if finish:
                break
            if due:
                choice = Pick(due.pop(0), math.nan)
            else:
                logits, choice = await feed(unfed, Cost(1))
                unfed = []
        if keep:
            result = await self.scheduler.submit([Row(view, ids=unfed)], [Cost(1)], ahead=True)
            if ledger is not None:
                ledger.add(result.cost)


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a stop string."""
    lengths = (n for mark in stops for n in range(1, len(mark)) if text.endswith(mark[:n]))
    return max(lengths, default=0)


def _last(view: View) -> list[int]:
    """Some ids at the view's end, which its text goes on from."""
    ids: list[int] = []
    for item in reversed(view.items):
        if len(ids) < _CONTEXT and isinstance(item, Span):
            ids = [*item.block.ids[item.lo : item.hi][-_CONTEXT:], *ids]
    return ids
