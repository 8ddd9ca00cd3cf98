"""Batching: the pending rows of all coroutines share ticks.

A *group* is a list of rows that one caller wants in the same tick. Groups that are pending at the same time run
together; a group that cannot run fails alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from kvorum.engine.budget import Ledger
from kvorum.engine.owners import Owners
from kvorum.engine.row import Cost, Output, Row
from kvorum.errors import BadRequest, KvorumError, TwoWriters
from kvorum.sampling.sampler import Draw, draw_all
from kvorum.sampling.sampling import Pick

if TYPE_CHECKING:
    from kvorum.engine.engine import EngineCore

MAX_TOKENS = 2048
"""New tokens per shared tick; further groups wait for the next one, in order of arrival."""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """One group's part of a tick: its rows' output, the tokens that were drawn, and its share of the cost."""

    output: Output
    cost: Ledger
    picks: Sequence[Pick | BadRequest | None] = ()

    def pick(self, at: int) -> Pick:
        """The token drawn for row ``at``. Raises BadRequest: none was left."""
        found = self.picks[at]
        if isinstance(found, BadRequest):
            raise found
        assert found is not None
        return found


@dataclass(slots=True, eq=False)
class _Group:
    rows: tuple[Row, ...]
    costs: tuple[Cost, ...]
    hidden: bool
    every: bool
    owners: Owners | None
    draws: Sequence[Draw | None]
    future: asyncio.Future[Reply]
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = sum(row.count for row in self.rows)

    def pages(self) -> int:
        """How many pages its tokens take."""
        return sum(row.view.own.pages_needed(row.count) for row in self.rows if row.view.own is not None)


class Batcher:
    """Collects groups and runs them, tick by tick, on the event loop of whoever submits."""

    def __init__(self, engine: EngineCore) -> None:
        self._engine = engine
        self._pending: deque[_Group] = deque()
        self._task: asyncio.Task[None] | None = None
        self._long: set[int] = set()  # blocks that a row of several ticks is being written to
        self.listener: Callable[[int, int, float], None] | None = None
        """Called after each tick with its rows, its new tokens and its seconds."""

    @property
    def waiting(self) -> int:
        """Rows that are pending."""
        return sum(len(group.rows) for group in self._pending)

    async def submit(
        self,
        rows: Sequence[Row],
        costs: Sequence[Cost],
        *,
        hidden: bool = False,
        every: bool = False,
        owners: Owners | None = None,
        draws: Sequence[Draw | None] = (),
    ) -> Reply:
        """Run ``rows`` in the next tick, together with whatever else is pending.

        A lone row longer than the engine's ``prefill_chunk`` takes several ticks, so that others are not held up.
        ``every``: also return the logits of every new token; such rows must be no longer than that. ``owners``: as in
        ``Engine.forward``. ``draws``: of which rows a token is drawn at once, for all groups of the tick together; a
        ``step`` that counts the row's own tokens counts them as they are behind the tick.

        Raises:
            What ``Engine.forward`` raises, to this caller alone.
        """
        if owners is not None:
            self._engine.check_tap()
        for block in self._engine.admit(rows):
            if block.uid in self._long:
                raise TwoWriters(f"{block.name} is being written to by a long row; wait for that row to end.")
        if len(rows) == 1 and rows[0].count > self._engine.prefill_chunk:
            if every:
                raise BadRequest(f"Every token's logits: at most {self._engine.prefill_chunk} tokens at a time.")
            return await self._submit_long(rows[0], costs[0], hidden, owners, draws)
        return await self._enqueue(tuple(rows), tuple(costs), hidden, every, owners, draws)

    async def _submit_long(
        self, row: Row, cost: Cost, hidden: bool, owners: Owners | None, draws: Sequence[Draw | None]
    ) -> Reply:
        """Piece by piece, all of it or nothing."""
        own, chunk, total = row.view.own, self._engine.prefill_chunk, Ledger()
        assert own is not None
        length, logits = len(own), own.logits
        own.reserve(row.count)
        self._long.add(own.uid)
        starts = range(0, row.count, chunk)
        try:
            for start in starts:
                piece, last = row.part(start, start + chunk), start == starts[-1]
                decoded = Cost((cost.decoded or 0) if start == 0 else 0)
                some = (hidden, False, owners, draws) if last else (False, False, None, ())
                reply = await self._enqueue((piece,), (decoded,), *some)
                total.add(reply.cost)
        except BaseException:  # cancelled, too
            own.truncate(length)
            own.logits = logits
            raise
        finally:
            self._long.discard(own.uid)
        return Reply(reply.output, total, reply.picks)

    async def _enqueue(
        self,
        rows: tuple[Row, ...],
        costs: tuple[Cost, ...],
        hidden: bool,
        every: bool,
        owners: Owners | None,
        draws: Sequence[Draw | None],
    ) -> Reply:
        loop = asyncio.get_running_loop()
        group = _Group(rows, costs, hidden, every, owners, draws or [None] * len(rows), loop.create_future())
        self._pending.append(group)
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._drain())
        return await group.future

    async def _drain(self) -> None:
        while self._pending:
            await self._settle()
            groups = self._choose()
            if groups:
                self._run(groups)

    async def _settle(self) -> None:
        """Let every coroutine that was woken by the last tick hand in its next rows."""
        quiet, before = 0, -1
        while quiet < 3:
            quiet = quiet + 1 if len(self._pending) == before else 0
            before = len(self._pending)
            await asyncio.sleep(0)

    def _choose(self) -> list[_Group]:
        """The groups of the next tick: in order of arrival, as many as fit; the first always."""
        if self._all():
            chosen, self._pending = list(self._pending), deque()
            return chosen
        chosen = []
        written: set[int] = set()
        tokens = pages = 0
        waiting: deque[_Group] = deque()
        for group in self._pending:
            if group.future.done():  # its caller was cancelled
                continue
            own = {row.view.own.uid for row in group.rows if row.view.own is not None}
            if chosen and (tokens + group.tokens > self._most or own & written):
                waiting.append(group)
                continue
            try:
                self._engine.admit(group.rows)
            except KvorumError as error:
                group.future.set_exception(error)
                continue
            needed = group.pages()
            if chosen and pages + needed > self._engine.pool.free:
                waiting.append(group)
                continue
            chosen.append(group)
            written |= own
            tokens, pages = tokens + group.tokens, pages + needed
        if len(chosen) > 1 and not self._together(chosen):
            waiting.extendleft(reversed(chosen[1:]))
            chosen = chosen[:1]
        self._pending = waiting
        return chosen

    def _all(self) -> bool:
        """Whether all that is pending can share the next tick, which is looked at once, not group by group."""
        tokens = sum(group.tokens for group in self._pending)
        if tokens > self._most or any(group.future.done() for group in self._pending):
            return False
        return self._together(self._pending)

    @property
    def _most(self) -> int:
        return min(MAX_TOKENS, self._engine.shape.max_tokens or MAX_TOKENS)

    def _together(self, groups: Iterable[_Group]) -> bool:
        """Whether groups can share a tick: one may write to what another sees, and lengthen it beyond bounds."""
        try:
            self._engine.admit([row for group in groups for row in group.rows])
        except KvorumError:
            return False
        return True

    def _run(self, groups: list[_Group]) -> None:
        engine = self._engine
        rows = [row for group in groups for row in group.rows]
        costs = [cost for group in groups for cost in group.costs]
        blocks = [row.view.own for row in rows]
        lengths = [len(block) for block in blocks if block is not None]
        try:
            every = [group.every for group in groups for _ in group.rows]
            hidden = any(group.hidden for group in groups)
            owners = [group.owners for group in groups for _ in group.rows]
            output, plan, seconds = engine.tick(rows, hidden=hidden, every=every, costs=costs, owners=owners)
            picks = draw_all(output.logits, [draw for group in groups for draw in group.draws])
        except BaseException as error:
            for block, length in zip(blocks, lengths, strict=True):
                if block is not None:
                    block.truncate(length)
            # an interrupt goes to the first caller, who ends the loop with it; this task has nobody to tell
            waiting = [group.future for group in groups if not group.future.done()]
            for at, future in enumerate(waiting):
                if at == 0 or isinstance(error, Exception):
                    future.set_exception(error)
                else:
                    future.cancel()
            return
        if self.listener is not None:
            self.listener(len(rows), plan.tokens, seconds)
        size = engine.pool.bytes_per_token
        # a segment that several rows see is read once; each is charged its share
        read = [0.0] * len(rows)
        for segment in plan.segments:
            share = segment.length / len(segment.rows)
            for at in segment.rows:
                read[at] += share
        start = 0
        logits = torch.split(output.logits, [len(group.rows) for group in groups])
        for at, group in enumerate(groups):
            stop = start + len(group.rows)
            cost = Ledger(ticks=1, seconds=seconds, kv_written=group.tokens * size)
            cost.kv_read = round(sum(read[start:stop]) * size)
            for row, kind in zip(group.rows, group.costs, strict=True):
                cost.add(kind.of(row))
            part = Output(
                logits[at],
                None if output.hidden is None else output.hidden[start:stop],
                output.every[start:stop] if group.every and output.every is not None else None,
                output.attention[start:stop] if group.owners is not None and output.attention is not None else None,
            )
            if not group.future.done():
                group.future.set_result(Reply(part, cost, picks[start:stop]))
            start = stop
