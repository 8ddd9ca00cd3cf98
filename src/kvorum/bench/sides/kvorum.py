"""kvorum in a bench: a team over one context, the same tokens in many spans, and many teams in one engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from torch import nn

from kvorum import Block, Engine, Row, Span, View
from kvorum.attention.plan import Planner
from kvorum.bench.memory import resident
from kvorum.bench.sides.messages import EngineFigures, ManyTeams
from kvorum.bench.sides.side import TOKEN, Tick, tokens
from kvorum.models.packed.layers import PackedLinear

Given = ParamSpec("Given")
Made = TypeVar("Made")


class Shared:
    """Everyone sees the context, the others and itself; the context is stored once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._context: Block = engine.block()

    @classmethod
    def load(cls, model: str, kv_tokens: int, exact: bool = False, kv_dtype: str = "auto") -> Shared:
        dtype, quantize = ("float32", None) if exact else ("auto", "auto")
        return cls(Engine.load(model, kv_tokens=kv_tokens, kv_dtype=kv_dtype, dtype=dtype, quantize=quantize))

    def about(self) -> EngineFigures:
        """The engine, its vocabulary and its bytes."""
        return EngineFigures(
            engine=self.engine.about(),
            vocab=self.engine.shape.vocab,
            weight_bytes=weight_bytes(self.engine.model),
            bytes_per_token=self.engine.pool.bytes_per_token,
        )

    def read(self, ids: Sequence[int]) -> float:
        """See `Side`."""
        self._context = self.engine.block()  # first: the old one's pages are free again
        started = time.perf_counter()
        self.engine.forward([Row(View(self._context), ids=list(ids))])
        return time.perf_counter() - started

    @contextmanager
    def team(self, workers: int, spare: int) -> Iterator[Tick]:
        """See `Side`."""
        views = _team(self.engine, self._context, workers)
        yield self._tick_of(views)

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

    def crowd(self, teams: int, workers: int, context: int, repeats: int) -> ManyTeams:
        """``teams`` teams in one engine, each behind a context of its own, ticking together."""
        before, free = resident(), self.engine.pool.free_tokens
        ids = tokens(self.engine.shape.vocab, context)
        views: list[View] = []
        for _ in range(teams):
            self.read(ids)
            views += _team(self.engine, self._context, workers)
        rows = [Row(view, ids=[TOKEN]) for view in views]
        counts = [1] * len(rows)
        self.engine.forward(rows)
        planner = Planner()
        first = _seconds(planner.plan, views, counts)
        ticks, plans = [], []
        for _ in range(repeats):
            ticks.append(_seconds(self.engine.forward, rows))
            plans.append(_seconds(planner.plan, views, counts))
        slots = free - self.engine.pool.free_tokens
        return ManyTeams(
            tick=ticks,
            plan=plans,
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


def _seconds(job: Callable[Given, Made], *args: Given.args, **kwargs: Given.kwargs) -> float:
    started = time.perf_counter()
    job(*args, **kwargs)
    return time.perf_counter() - started
