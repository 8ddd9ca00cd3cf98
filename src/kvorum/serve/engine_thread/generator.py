"""Plain decoding: a request's prompts through the prefix cache, its choices side by side, its tokens to a channel.

A prompt that is to be echoed with its log-probabilities is scored instead. Runs on the engine's loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvorum.api import Engine
from kvorum.engine.budget import Ledger
from kvorum.engine.decode import Token
from kvorum.engine.row import Cost, Row
from kvorum.errors import BadRequest
from kvorum.harness.tools.call_reader import Read
from kvorum.kv import Block, View
from kvorum.runs.kept_prompts import Prefix
from kvorum.runs.prefix_cache import PrefixCache
from kvorum.sampling.reference import likeliest
from kvorum.sampling.sampling import Sampling
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.client_blocks import ClientBlocks
from kvorum.serve.engine_thread.thread import Channel
from kvorum.serve.errors import too_long
from kvorum.serve.keys.caller import Caller
from kvorum.serve.metrics import Metrics
from kvorum.serve.request_models.blocks import ViewItem

SCORED = 128
"""Tokens of an echoed prompt whose logits are held at a time: ``[SCORED, vocab]`` floats."""


@dataclass(slots=True)
class DecodeRequest:
    """What a request wants of plain decoding, and how far it is.

    ``prompts`` are token ids. ``items`` are a view that stands before each prompt, ``into`` the open block that prompt
    and reply are written to. ``top`` asks for log-probabilities of the reply, each with so many of the likeliest
    tokens, and ``echo`` for the prompt with its own. ``show``: special tokens whose text is part of the reply's.
    """

    prompts: Sequence[Sequence[int]]
    choices: int
    tokens: int
    sampling: Sampling
    stop: Sequence[str] = ()
    top: int | None = None
    echo: bool = False
    items: Sequence[ViewItem] = ()
    into: str | None = None
    show: frozenset[int] = frozenset()

    # set by the generator
    began: float = field(default_factory=time.monotonic, init=False)
    behind: View = field(default_factory=View, init=False)
    written: Block | None = field(default=None, init=False)
    usage: Usage = field(init=False)

    def __post_init__(self) -> None:
        self.usage = Usage(prompt=sum(map(len, self.prompts)))


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """What was added to the reply with number ``index``; all of it, where parts were put together.

    ``text``: of the answer. ``reasoning``: a model's thoughts, or a program's workers'. ``calls``: what was read of
    calls of tools, without words. ``finish``: why it ended, in OpenAI's words. ``tokens``: what the text was decoded
    from. ``echoed``: the scored prompt that stands before it; its first token has
    no log-probability, but NaN.
    """

    index: int
    text: str = ""
    finish: str | None = None
    tokens: Sequence[Token] = ()
    echoed: Sequence[Token] | None = None
    reasoning: str = ""
    calls: Sequence[Read] = ()


@dataclass(slots=True)
class Usage:
    """What a request has cost, which comes last.

    ``cached`` prompt tokens were in the cache already. ``run``: the id of the run that it is the usage of. ``dropped``:
    how many messages of the conversation were left out, since they did not fit.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    run: str | None = None
    dropped: int = 0


Piece = ReplyPart | Usage
"""What a request hears while it is replied to."""


class Generator:
    """Plain decoding on one engine, for any number of requests at a time."""

    def __init__(
        self, engine: Engine, admission: Admission, prefixes: PrefixCache, blocks: ClientBlocks, metrics: Metrics
    ) -> None:
        self._engine, self._admission, self._prefixes = engine, admission, prefixes
        self._blocks, self._metrics = blocks, metrics

    async def answer(self, ask: DecodeRequest, caller: Caller, channel: Channel[Piece]) -> None:
        """Tell ``channel`` every token of every choice, then the usage."""
        with ExitStack() as stack:
            if ask.items:
                ask.behind = await self._blocks.view(ask.items, caller)
            if ask.into is not None:
                held = await self._blocks.find(ask.into, caller)
                ask.written = stack.enter_context(self._blocks.writing(held))
            self._check(ask)
            prefixes: list[Prefix] = []
            alone = not ask.items and ask.written is None and not ask.echo

            def need() -> int:
                if alone:
                    prefixes.extend(self._prefixes.match(ids, caller.owner) for ids in ask.prompts)
                lengths = [prefix.length - prefix.again for prefix in prefixes] or [0] * len(ask.prompts)
                pages_for = self._engine.pool.pages_for
                return sum(
                    pages_for(len(ids) - length) + ask.choices * pages_for(ask.tokens)
                    for ids, length in zip(ask.prompts, lengths, strict=True)
                )

            def giveback() -> None:
                while prefixes:
                    self._prefixes.release(prefixes.pop())

            rows = len(ask.prompts) * ask.choices
            ticket = await self._admission.enter(caller.turn, rows, need, giveback=giveback)
            stack.callback(self._admission.leave, ticket)
            stack.callback(giveback)
            self._metrics.queued.observe(time.monotonic() - ask.began)
            caller.spend(ask.usage.prompt)
            try:
                async with asyncio.TaskGroup() as group:
                    for at, ids in enumerate(ask.prompts):
                        group.create_task(self._prompt(ask, caller, channel, at, ids, prefixes[at] if alone else None))
            except* Exception as errors:
                raise _first(errors) from None
        channel.put(ask.usage)

    def _check(self, ask: DecodeRequest) -> None:
        """Raise BadRequest where a prompt and its reply do not fit into the model's positions."""
        limit, written = self._engine.shape.longest, 0 if ask.written is None else len(ask.written)
        for ids in ask.prompts:
            if not ids and (ask.echo or not written):
                raise BadRequest("The prompt is empty: it has no token to go on from.")
            prompt = len(ask.behind) + written + len(ids)
            if limit is not None and prompt + ask.tokens > limit:
                raise too_long(f"The prompt has {prompt} tokens and the reply may have {ask.tokens}", limit)

    async def _prompt(
        self,
        ask: DecodeRequest,
        caller: Caller,
        channel: Channel[Piece],
        at: int,
        ids: Sequence[int],
        prefix: Prefix | None,
    ) -> None:
        first, known = at * ask.choices, None
        if prefix is not None:
            encoded = await self._prefixes.encode(ids, prefix, going_on=ask.choices == 1 and ask.tokens > 0)
            view, logits, cost, known = encoded.view, encoded.logits, encoded.cost, ids
            ask.usage.cached += encoded.shared
        elif ask.echo:
            block = self._engine.block("prompt")
            echoed, logits, cost = await self._score(ask.behind.then(block), ids, ask.top or 0)
            view = ask.behind.then(block.seal())
            finish = None if ask.tokens else "length"
            for choice in range(ask.choices):
                channel.put(ReplyPart(first + choice, finish=finish, echoed=echoed))
        else:
            block = ask.written or self._engine.block("prompt")
            view = ask.behind.then(block)
            reply = await self._engine.scheduler.submit([Row(view, ids=list(ids))], [Cost(0)])
            logits, cost = reply.output.logits[0], reply.cost
            if ask.written is None:
                block.seal()
        ask.usage.ledger.add(cost)
        if ask.tokens:
            choices = (self._choice(ask, caller, channel, first, i, view, logits, known) for i in range(ask.choices))
            await asyncio.gather(*choices)

    async def _score(self, view: View, ids: Sequence[int], top: int) -> tuple[list[Token], Tensor, Ledger]:
        """Append ``ids`` to the view's open end, with what each is worth, the first nothing: its logprob is NaN.

        Returns the tokens, the logits ``[vocab]`` behind the last, and the cost.
        """
        cost, tokens = Ledger(), [Token(ids[0], "", math.nan)]
        last: Tensor | None = None
        piece = min(SCORED, self._engine.prefill_chunk)
        for start in range(0, len(ids), piece):
            part = list(ids[start : start + piece])
            reply = await self._engine.scheduler.submit([Row(view, ids=part)], [Cost(0)], every=True)
            assert reply.output.every is not None
            cost.add(reply.cost)
            logits = reply.output.every[0].detach().to("cpu", torch.float32)
            before, targets = (logits[:-1], part[1:]) if last is None else (torch.cat([last[None], logits[:-1]]), part)
            for row, token, total in zip(before, targets, torch.logsumexp(before, dim=1).tolist(), strict=True):
                tokens.append(Token(token, "", float(row[token]) - total, top=likeliest(row, top, total)))
            last = logits[-1].clone()
        assert last is not None
        return tokens, last, cost

    async def _choice(
        self,
        ask: DecodeRequest,
        caller: Caller,
        channel: Channel[Piece],
        first: int,
        stream: int,
        view: View,
        logits: Tensor,
        known: Sequence[int] | None,
    ) -> None:
        """``known``: what stands in the view, where the reply is to be remembered behind it."""
        if view.own is None or view.own.sealed:
            view = view.then(self._engine.block("reply"))
        tokens = self._engine.decode(
            view,
            sampling=ask.sampling,
            stop=ask.stop,
            max_tokens=ask.tokens,
            stream=stream,
            step=0 if ask.written is None else None,
            logits=logits,
            show=ask.show,
            logprobs=ask.top is not None,
            top=ask.top or 0,
            keep=ask.written is not None,
            forced=ask.top is None,  # of forced tokens the model is not asked how likely they are
            ledger=ask.usage.ledger,
        )
        begun, whole = False, False
        try:
            async for token in tokens:
                if not begun:
                    self._metrics.first.observe(time.monotonic() - ask.began)
                    begun = True
                ask.usage.completion += 1
                caller.spend(1)
                finish = token.finish and ("length" if token.finish == "length" else "stop")
                channel.put(ReplyPart(first + stream, token.text, finish, (token,)))
            whole = True
        finally:
            if known is not None:
                self._prefixes.keep(known, view, whole=whole, owner=caller.owner)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
