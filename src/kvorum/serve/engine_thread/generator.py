"""Plain decoding: a request's prompts through the prefix cache, its choices side by side, its tokens to a channel.

Runs on the engine's loop. Scoring of given text (echo with logprobs) is in ``scoring``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from torch import Tensor

from kvorum.api import Engine
from kvorum.engine.budget import Ledger
from kvorum.engine.decode import Token
from kvorum.engine.row import Cost, Row
from kvorum.errors import BadRequest
from kvorum.kv import Block, View
from kvorum.runs.prefix_cache import Prefix, PrefixCache
from kvorum.sampling.sampling import Sampling
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.client_blocks import ClientBlocks
from kvorum.serve.engine_thread.scoring import Scored, score
from kvorum.serve.engine_thread.thread import Channel
from kvorum.serve.errors import ApiError
from kvorum.serve.metrics import Metrics
from kvorum.serve.request_models import ViewItem


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """What a request wants of plain decoding.

    ``prompts`` are token ids. ``items`` are a view that stands before each prompt, ``into`` the open block that prompt
    and reply are written to. ``top`` asks for log-probabilities of the reply, each with so many of the likeliest
    tokens, and ``echo`` for the prompt with its own.
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


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """What was added to the reply with number ``index``; all of it, where parts were put together.

    ``text``: of the answer. ``reasoning``: of a program's workers. ``finish``: why it ended, in OpenAI's words.
    ``tokens``: what the text was decoded from. ``echoed``: the scored prompt that stands before it.
    """

    index: int
    text: str = ""
    finish: str | None = None
    tokens: Sequence[Token] = ()
    echoed: Scored | None = None
    reasoning: str = ""


@dataclass(slots=True)
class Usage:
    """What a request has cost, which comes last.

    ``cached`` prompt tokens were in the cache already. ``run``: the id of the run that it is the usage of.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    run: str | None = None


Piece = ReplyPart | Usage
"""What a request hears while it is replied to."""


class Generator:
    """Plain decoding on one engine, for any number of requests at a time."""

    def __init__(
        self, engine: Engine, admission: Admission, prefixes: PrefixCache, blocks: ClientBlocks, metrics: Metrics
    ) -> None:
        self._engine, self._admission, self._prefixes = engine, admission, prefixes
        self._blocks, self._metrics = blocks, metrics

    async def answer(self, ask: DecodeRequest, client: str, channel: Channel[Piece]) -> None:
        """Tell ``channel`` every token of every choice, then the usage, and close it."""
        try:
            await self._answer(ask, client, channel, time.monotonic())
        except asyncio.CancelledError:
            self._metrics.cancelled.inc()
            raise
        except Exception as error:  # no name outlives this: its frames hold blocks
            channel.close(error)
        finally:
            channel.close()

    async def _answer(self, ask: DecodeRequest, client: str, channel: Channel[Piece], began: float) -> None:
        with ExitStack() as stack:
            behind, into = await self._blocks.view(ask.items, client) if ask.items else None, None
            if ask.into is not None:
                into = stack.enter_context(self._blocks.writing(await self._blocks.find(ask.into, client)))
            self._check(ask, 0 if behind is None else len(behind), 0 if into is None else len(into))
            prefixes: list[Prefix] = []
            alone = behind is None and into is None and not ask.echo

            def need() -> int:
                if alone:
                    prefixes.extend(self._prefixes.match(ids) for ids in ask.prompts)
                lengths = [prefix.length - prefix.again for prefix in prefixes] or [0] * len(ask.prompts)
                return sum(
                    self._pages(len(ids) - length) + ask.choices * self._pages(ask.tokens)
                    for ids, length in zip(ask.prompts, lengths, strict=True)
                )

            def giveback() -> None:
                while prefixes:
                    self._prefixes.release(prefixes.pop())

            rows = len(ask.prompts) * ask.choices
            ticket = await self._admission.enter(client, rows, need, giveback=giveback)
            stack.callback(self._admission.leave, ticket)
            stack.callback(giveback)
            self._metrics.queued.observe(time.monotonic() - began)
            usage = Usage(prompt=sum(map(len, ask.prompts)))
            work = _Admitted(ask, channel, usage, began, behind, into)
            try:
                async with asyncio.TaskGroup() as group:
                    for at, ids in enumerate(ask.prompts):
                        group.create_task(self._prompt(work, at, ids, prefixes[at] if alone else None))
            except* Exception as errors:
                raise _first(errors) from None
        channel.put(usage)

    def _check(self, ask: DecodeRequest, behind: int, written: int) -> None:
        """Raise BadRequest where a prompt and its reply do not fit into the model's positions."""
        limit = self._engine.shape.max_positions
        for ids in ask.prompts:
            if not ids and not written:
                raise BadRequest("The prompt is empty: it has no token to go on from.")
            total = behind + written + len(ids) + ask.tokens
            if limit is not None and total > limit:
                raise ApiError(
                    400,
                    f"{behind + written + len(ids)} tokens of prompt and {ask.tokens} of reply are more than the "
                    f"{limit} positions of this model.",
                    code="context_length_exceeded",
                )

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self._engine.pool.page_size) if tokens > 0 else 0

    async def _prompt(self, work: _Admitted, at: int, ids: Sequence[int], prefix: Prefix | None) -> None:
        ask, first = work.ask, at * work.ask.choices
        view = View() if work.behind is None else work.behind
        if prefix is not None:
            encoded = await self._prefixes.encode(ids, prefix, going_on=ask.choices == 1 and ask.tokens > 0)
            view, logits, cost = encoded.view, encoded.logits, encoded.cost
            work.usage.cached += encoded.shared
        elif ask.echo:
            block = self._engine.block("prompt")
            scored, logits, cost = await score(self._engine, view.then(block), ids, ask.top or 0)
            view = view.then(block.seal())
            finish = None if ask.tokens else "length"
            for choice in range(ask.choices):
                work.channel.put(ReplyPart(first + choice, finish=finish, echoed=scored))
        else:
            block = work.into or self._engine.block("prompt")
            view = view.then(block)
            reply = await self._engine.scheduler.submit([Row(view, ids=list(ids))], [Cost(0)])
            logits, cost = reply.output.logits[0], reply.cost
            if work.into is None:
                block.seal()
        work.usage.ledger.add(cost)
        if ask.tokens:
            known = ids if prefix is not None else None
            await asyncio.gather(*(self._choice(work, first + i, i, view, logits, known) for i in range(ask.choices)))

    async def _choice(
        self, work: _Admitted, index: int, stream: int, view: View, logits: Tensor, known: Sequence[int] | None
    ) -> None:
        """``known``: what stands in the view, where the reply is to be remembered behind it."""
        ask, usage, first, whole = work.ask, work.usage, True, False
        if view.own is None or view.own.sealed:
            view = view.then(self._engine.block("reply"))
        tokens = self._engine.decode(
            view,
            sampling=ask.sampling,
            stop=ask.stop,
            max_tokens=ask.tokens,
            stream=stream,
            step=0 if work.into is None else None,
            logits=logits,
            logprobs=ask.top is not None,
            top=ask.top or 0,
            keep=work.into is not None,
            ledger=usage.ledger,
        )
        try:
            async for token in tokens:
                if first:
                    self._metrics.first.observe(time.monotonic() - work.began)
                    first = False
                usage.completion += 1
                finish = token.finish and ("length" if token.finish == "length" else "stop")
                work.channel.put(ReplyPart(index, token.text, finish, (token,)))
            whole = True
        finally:
            if known is not None:
                self._prefixes.keep(known, view, whole=whole)


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A request that has its place. ``behind``: the view before its prompts; ``into``: the block that it writes to."""

    ask: DecodeRequest
    channel: Channel[Piece]
    usage: Usage
    began: float
    behind: View | None
    into: Block | None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
