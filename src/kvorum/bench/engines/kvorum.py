"""kvorum in a bench: a team over one context, the same tokens in many spans, and many teams in one engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import nn

from kvorum import Block, Engine, Row, Span, View
from kvorum.attention.plan import Planner
from kvorum.bench.engines.side import TOKEN, SideOptions, Tick, seconds, tokens
from kvorum.bench.machine import describe_machine, resident
from kvorum.bench.result import About, Crowd, Timing
from kvorum.models.packed.layers import PackedLinear


class Shared:
    """Everyone sees the context, the others and itself; the context is stored once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._context: Block = engine.block()

    @classmethod
    def load(cls, options: SideOptions) -> Shared:
        asked = options.asked
        dtype, quantize = ("float32", None) if asked.exact else ("auto", "auto")
        engine = Engine.load(
            asked.model,
            kv_tokens=options.kv_tokens,
            kv_dtype=asked.kv_dtype,
            dtype=dtype,
            quantize=quantize,
            ignore_unknown=asked.ignore_unknown,
        )
        return cls(engine)

    def about(self, model: str) -> About:
        """The machine, and the engine with its vocabulary and its bytes."""
        return About(
            model=model,
            machine=describe_machine(),
            engine=self.engine.about(),
            vocab=self.engine.shape.vocab,
            weight_bytes=weight_bytes(self.engine.model),
            bytes_per_token=self.engine.pool.bytes_per_token,
            longest=self.engine.shape.longest,
        )

    def read(self, ids: Sequence[int]) -> float:
        """See `Side`."""
        self._context = self.engine.block()  # first: the old one's pages are free again
        rows = [Row(View(self._context), ids=list(ids))]
        return seconds(partial(self.engine.forward, rows))

    @contextmanager
    def team(self, workers: int, spare: int) -> Iterator[Tick]:
        """See `Side`."""
        yield self._tick_of(_team(self.engine, self._context, workers))

    @contextmanager
    def spans(self, count: int, workers: int) -> Iterator[Tick]:
        """Workers that do not see each other, behind the context in ``count`` closed spans of blocks of their own."""
        length = len(self._context) // count
        blocks = []
        for at in range(count):
            block = self.engine.block()
            self.engine.compact([Span(self._context, at * length, (at + 1) * length)], block)
            blocks.append(block.seal())
        views = [View(*blocks, self.engine.block()) for _ in range(workers)]
        yield self._tick_of(views)

    def _tick_of(self, views: Sequence[View]) -> Tick:
        def tick() -> None:
            self.engine.forward([Row(view, ids=[TOKEN]) for view in views])

        return tick

    def crowd(self, teams: int, workers: int, context: int, repeats: int) -> Crowd:
        """``teams`` teams in one engine, each behind a context of its own, ticking together."""
        before, free = resident(), self.engine.pool.free_tokens
        ids = tokens(self.engine.shape.vocab, context)
        views: list[View] = []
        for _ in range(teams):
            self.read(ids)
            views += _team(self.engine, self._context, workers)
        planner, rows = Planner(), [Row(view, ids=[TOKEN]) for view in views]

        def tick() -> None:
            self.engine.forward(rows)

        def plan() -> None:
            planner.plan(views, [1] * len(views))

        tick()
        first = seconds(plan)
        ticks, plans = [], []
        for _ in range(repeats):
            ticks.append(seconds(tick))
            plans.append(seconds(plan))
        slots = free - self.engine.pool.free_tokens
        return Crowd(
            teams=teams,
            workers=workers,
            context=context,
            tick=Timing.of(ticks),
            plan=Timing.of(plans),
            first_plan=first,
            slots=slots,
            computed=self.engine.pool.bytes_per_token,
            resident=(resident() - before) / slots,
        )


def weight_bytes(model: nn.Module) -> int:
    """Bytes of weights that a tick reads: all but the input embedding, unless that is the output layer too."""
    packed = [module.packed.nbytes for module in model.modules() if isinstance(module, PackedLinear)]
    skipped = set()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    if isinstance(embedding, nn.Embedding) and embedding.weight is not getattr(head, "weight", None):
        skipped.add(embedding.weight)
    return sum(packed) + sum(p.nbytes for p in model.parameters() if p not in skipped)


def _team(engine: Engine, context: Block, workers: int) -> list[View]:
    own = [engine.block() for _ in range(workers)]
    return [View(context, *(block for block in own if block is not mine), mine) for mine in own]
