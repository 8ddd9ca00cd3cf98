"""The scheduler: the pending rows of all coroutines share ticks.

A *group* is a list of rows that one caller wants in the same tick. Groups that are pending at the same time run
together; a group that cannot run fails alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kvorum.attention.plan import Plan
from kvorum.engine.admission import CheckedRow
from kvorum.engine.budget import Ledger
from kvorum.engine.executor import Batch, Executor, Ticked
from kvorum.engine.owners import Owners
from kvorum.engine.row import Cost, Output, Row
from kvorum.errors import BadRequest, KvorumError, TwoWriters
from kvorum.kv import unchanged_on_error
from kvorum.sampling.sampler import Draw
from kvorum.sampling.sampling import Pick

MAX_TOKENS = 2048
"""New tokens per shared tick; further groups wait for the next one, in order of arrival."""

QUIET = 3
"""Turns of the event loop without a new group after which a tick begins, where somebody may still hand in rows."""


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
    rows: Sequence[CheckedRow]
    hidden: bool
    every: bool
    owners: Owners | None
    draws: Sequence[Draw | None]
    future: asyncio.Future[Reply]
    caller: asyncio.Task[Reply] | None
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = sum(row.count for row in self.rows)


class Scheduler:
    """Collects groups and runs them, tick by tick, on the event loop of whoever submits."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._pending: deque[_Group] = deque()
        self._task: asyncio.Task[None] | None = None
        self._long: set[int] = set()  # blocks that a row of several ticks is being written to
        self._answered: set[asyncio.Task[Reply]] = set()  # callers of the last tick that have not come back yet
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

        A lone row longer than the executor's ``prefill_chunk`` takes several ticks, so that others are not held up.
        ``every``: also return the logits of every new token; such rows must be no longer than that. ``owners``: as in
        ``EngineCore.forward``. ``draws``: of which rows a token is drawn at once, for all groups of the tick together;
        a ``step`` that counts the row's own tokens counts them as they are behind the tick.

        Raises:
            What ``EngineCore.forward`` raises, to this caller alone.
        """
        if owners is not None and (lack := self._executor.backend.lacks_tap()) is not None:
            raise lack
        checked = self._executor.check(rows, costs)
        for row in checked:
            if row.own.uid in self._long:
                raise TwoWriters(f"{row.own.name} is being written to by a long row; wait for that row to end.")
        chunk = self._executor.prefill_chunk
        if len(checked) > 1 or checked[0].count <= chunk:
            return await self._enqueue(checked, hidden, every, owners, draws)
        if every:
            raise BadRequest(f"Every token's logits: at most {chunk} tokens at a time.")
        return await self._submit_long(checked[0], hidden, owners, draws)

    async def _submit_long(
        self, row: CheckedRow, hidden: bool, owners: Owners | None, draws: Sequence[Draw | None]
    ) -> Reply:
        """Piece by piece, all of it or nothing."""
        self._executor.admit([row])
        total = Ledger()
        *first, last = row.chunks(self._executor.prefill_chunk)
        row.own.reserve(row.count)
        self._long.add(row.own.uid)
        try:
            with unchanged_on_error([row.own]):
                for piece in first:
                    total.add((await self._enqueue([piece])).cost)
                reply = await self._enqueue([last], hidden, False, owners, draws)
        finally:
            self._long.discard(row.own.uid)
        total.add(reply.cost)
        return Reply(reply.output, total, reply.picks)

    async def _enqueue(
        self,
        rows: Sequence[CheckedRow],
        hidden: bool = False,
        every: bool = False,
        owners: Owners | None = None,
        draws: Sequence[Draw | None] = (),
    ) -> Reply:
        loop = asyncio.get_running_loop()
        caller = asyncio.current_task()
        group = _Group(rows, hidden, every, owners, draws or [None] * len(rows), loop.create_future(), caller)
        self._pending.append(group)
        if caller is not None:
            self._answered.discard(caller)
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._drain())
        return await group.future

    async def _drain(self) -> None:
        steady = False
        while self._pending:
            if not steady or self._answered:
                await self._settle()
            steady = self._tick()
            await asyncio.sleep(0)  # whoever was answered and has more to say hands it in now

    def _tick(self) -> bool:
        """Run what can be run now; False: nothing could. Holds no rows afterwards, so that their pages can be freed."""
        groups = self._choose()
        self._answered = {group.caller for group in groups if group.caller is not None}
        if groups:
            self._run(groups)
        return bool(groups)

    async def _settle(self) -> None:
        """Wait for coroutines that may still hand in rows of this tick, until some turns of the loop bring none.

        Not needed once every caller of the last tick has come back: nobody else is known to be on the way. Whoever has
        not may have ended, wait for something else, or hand in rows through new coroutines.
        """
        quiet, before = 0, -1
        while quiet < QUIET:
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
            own = {row.own.uid for row in group.rows}
            if chosen and (tokens + group.tokens > self._most or own & written):
                waiting.append(group)
                continue
            try:
                self._executor.admit(group.rows)
            except KvorumError as error:
                group.future.set_exception(error)
                continue
            needed = sum(row.own.pages_needed(row.count) for row in group.rows)
            if chosen and pages + needed > self._executor.pool.free:
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
        return min(MAX_TOKENS, self._executor.backend.shape.max_tokens or MAX_TOKENS)

    def _together(self, groups: Iterable[_Group]) -> bool:
        """Whether groups can share a tick: one may write to what another sees, and lengthen it beyond bounds."""
        try:
            self._executor.admit([row for group in groups for row in group.rows])
        except KvorumError:
            return False
        return True

    def _run(self, groups: list[_Group]) -> None:
        rows = [row for group in groups for row in group.rows]
        tapped = any(group.owners is not None for group in groups)
        batch = Batch(
            rows,
            hidden=any(group.hidden for group in groups),
            every=[group.every for group in groups for _ in group.rows],
            owners=[group.owners for group in groups for _ in group.rows] if tapped else (),
            draws=[draw for group in groups for draw in group.draws],
        )
        try:
            ticked = self._executor.run(batch)
        except BaseException as error:
            # an interrupt goes to the first caller, who ends the loop with it; this task has nobody to tell
            waiting = [group.future for group in groups if not group.future.done()]
            for at, future in enumerate(waiting):
                if at == 0 or isinstance(error, Exception):
                    future.set_exception(error)
                else:
                    future.cancel()
            return
        if self.listener is not None:
            self.listener(len(rows), ticked.plan.tokens, ticked.cost.seconds)
        self._answer(groups, ticked)

    def _answer(self, groups: list[_Group], ticked: Ticked) -> None:
        """Hand each group its part of the tick."""
        if len(groups) == 1:
            (group,) = groups
            if not group.future.done():
                group.future.set_result(Reply(ticked.output, ticked.cost, ticked.picks))
            return
        size = self._executor.pool.bytes_per_token
        read = _shares(ticked.plan)
        start = 0
        for group in groups:
            stop = start + len(group.rows)
            cost = Ledger(ticks=1, seconds=ticked.cost.seconds, kv_written=group.tokens * size)
            cost.kv_read = round(sum(read[start:stop]) * size)
            for row in group.rows:
                cost.add(row.spent)
            if not group.future.done():
                part = ticked.output.part(start, stop, every=group.every, attention=group.owners is not None)
                group.future.set_result(Reply(part, cost, ticked.picks[start:stop]))
            start = stop


def _shares(plan: Plan) -> list[float]:
    """Stored tokens that each row is charged with reading: a segment that several rows see is read once."""
    read = [0.0] * len(plan.counts)
    for segment in plan.segments:
        share = segment.length / len(segment.rows)
        for at in segment.rows:
            read[at] += share
    return read
