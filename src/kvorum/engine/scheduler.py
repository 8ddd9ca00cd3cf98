"""The scheduler: the pending rows of all coroutines share ticks.

A *group* is a list of rows that one caller wants in the same tick. Groups that are pending at the same time run
together; a group that cannot run fails alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kvorum.engine.budget import Ledger
from kvorum.engine.executor import Executor
from kvorum.engine.owners import Owners
from kvorum.engine.row import CheckedRow, Cost, Row
from kvorum.engine.tick_result import TickResult
from kvorum.errors import BadRequest, KvorumError, TwoWriters
from kvorum.kv.block import unchanged_on_error
from kvorum.sampling.matcher import Matcher
from kvorum.sampling.sampling import Draw

MAX_TOKENS = 2048
"""New tokens per shared tick; further groups wait for the next one, in order of arrival."""

QUIET = 3
"""Turns of the event loop without a new group after which a tick begins, where somebody may still hand in rows."""


@dataclass(slots=True, eq=False)
class _Group:
    rows: Sequence[CheckedRow]
    hidden: bool
    future: asyncio.Future[TickResult]
    caller: asyncio.Task[TickResult] | None
    tokens: int
    ahead: bool = False


class Scheduler:
    """Collects groups and runs them, tick by tick, on the event loop of whoever submits."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._pending: deque[_Group] = deque()
        self._task: asyncio.Task[None] | None = None
        self._long: set[int] = set()  # blocks that a row of several ticks is being written to
        self._answered: set[asyncio.Task[TickResult]] = set()  # callers of the last tick that have not come back yet
        self.listener: Callable[[int, int, float], None] | None = None
        """Called after each tick with its rows, its new tokens and its seconds."""
        self.between: Callable[[], bool] | None = None
        """Called between two ticks, when all whom the last one answered have come back; True: somebody else is on the
        way to hand in rows, who is waited for, since each turn of the loop that he takes would else last a tick."""

    def cost(self, rows: Sequence[Row], costs: Sequence[Cost]) -> Ledger:
        """What ``submit`` would put on the ledger for such rows, without bytes and seconds."""
        total = Ledger(ticks=-(-rows[0].count // self._executor.prefill_chunk) if len(rows) == 1 else 1)
        for row, cost in zip(rows, costs, strict=True):
            total.add(cost.spent(row.count, row.embeds is not None))
        return total

    async def submit(
        self,
        rows: Sequence[Row],
        costs: Sequence[Cost],
        *,
        hidden: bool = False,
        every: bool = False,
        owners: Owners | None = None,
        draws: Sequence[Draw | None] = (),
        matchers: Sequence[Matcher | None] = (),
        ahead: bool = False,
    ) -> TickResult:
        """Run ``rows`` in the next tick, together with whatever else is pending.

        A lone row longer than the executor's ``prefill_chunk`` takes several ticks, so that others are not held up.
        ``every``: also return the logits of every new token; such rows must be no longer than that. ``owners``: as in
        ``EngineCore.forward``. ``draws``: of which rows a token is drawn at once, for all groups of the tick together;
        a ``step`` that counts the row's own tokens counts them as they are behind the tick. ``matchers``: of rows with
        a grammar, where their texts stand behind the row's tokens; who hands one in takes the picked token with it.
        ``ahead``: rows that were computed ahead need not wait for the others of their tick, whose order they leave.

        Raises:
            What ``EngineCore.forward`` raises, to this caller alone.
        """
        checked = self._executor.check(rows, costs, every=every, owners=owners, draws=draws, matchers=matchers)
        return await self.submit_checked(checked, hidden, ahead)

    async def submit_checked(self, rows: Sequence[CheckedRow], hidden: bool, ahead: bool = False) -> TickResult:
        """As ``submit``, of rows that ``Executor.check`` has returned."""
        for row in rows:
            if row.own.uid in self._long:
                raise TwoWriters(f"{row.own.name} is being written to by a long row; wait for that row to end.")
        chunk = self._executor.prefill_chunk
        if len(rows) > 1 or rows[0].count <= chunk:
            return await self._enqueue(rows, hidden, ahead)
        if rows[0].every:
            raise BadRequest(f"Every token's logits: at most {chunk} tokens at a time.")
        return await self._submit_long(rows[0], hidden)

    async def _submit_long(self, row: CheckedRow, hidden: bool) -> TickResult:
        """Piece by piece, all of it or nothing."""
        self._executor.admit([row])
        total = Ledger()
        row.own.reserve(row.count)
        self._long.add(row.own.uid)
        try:
            with unchanged_on_error([row.own]):
                for piece in row.chunks(self._executor.prefill_chunk):
                    result = await self._enqueue([piece], hidden)
                    total.add(result.cost)
        finally:
            self._long.discard(row.own.uid)
        return replace(result, cost=total)

    async def _enqueue(self, rows: Sequence[CheckedRow], hidden: bool, ahead: bool = False) -> TickResult:
        loop = asyncio.get_running_loop()
        caller = asyncio.current_task()
        tokens = sum(row.count for row in rows)
        group = _Group(rows, hidden, loop.create_future(), caller, tokens, ahead)
        self._pending.append(group)
        if caller is not None:
            self._answered.discard(caller)
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._drain())
        return await group.future

    async def _drain(self) -> None:
        steady = False
        while self._pending:
            on_the_way = self.between is not None and self.between()
            if not steady or self._answered or on_the_way:
                await self._settle()
            steady = self._tick()
            await asyncio.sleep(0)  # whoever was answered and has more to say hands it in now

    def _tick(self) -> bool:
        """Run what can be run now; False: nothing could. Holds no rows afterwards, so that their pages can be freed."""
        groups = self._ready() or self._choose()
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

    def _ready(self) -> list[_Group]:
        """The groups that may run ahead and were computed ahead: nothing keeps them."""
        ready = [group for group in self._pending if group.ahead and self._executor.ready(group.rows)]
        ready = ready if self._fit(ready) else []
        if ready:
            self._pending = deque(group for group in self._pending if group not in ready)
        return [group for group in ready if not group.future.done()]

    def _choose(self) -> list[_Group]:
        """The groups of the next tick: in order of arrival, as many as fit; the first always."""
        pending = [group for group in self._pending if not group.future.done()]  # the others' callers were cancelled
        if self._fit(pending):  # as a rule, so it is looked at once, not group by group
            self._pending.clear()
            return pending
        chosen: list[_Group] = []
        waiting: deque[_Group] = deque()
        for group in pending:
            if not chosen:
                try:
                    self._executor.admit(group.rows)
                    chosen.append(group)
                except KvorumError as error:
                    group.future.set_exception(error)
            elif self._fit([*chosen, group]):
                chosen.append(group)
            else:
                waiting.append(group)
        self._pending = waiting
        return chosen

    def _fit(self, groups: Sequence[_Group]) -> bool:
        """Whether groups can share a tick: one may write to what another sees, and lengthen it beyond bounds."""
        most = min(MAX_TOKENS, self._executor.backend.shape.max_tokens or MAX_TOKENS)
        rows = [row for group in groups for row in group.rows]
        return sum(group.tokens for group in groups) <= most and self._executor.fits(rows)

    def _run(self, groups: list[_Group]) -> None:
        rows = [row for group in groups for row in group.rows]
        for number, group in enumerate(groups, 1):
            for row in group.rows:
                row.unit = number if group.ahead else 0
        try:
            result = self._executor.run(rows, any(group.hidden for group in groups))
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
            self.listener(len(rows), sum(row.count for row in rows), result.cost.seconds)
        self._answer(groups, result)

    def _answer(self, groups: list[_Group], result: TickResult) -> None:
        """Hand each group its part of the tick."""
        if len(groups) == 1:
            if not groups[0].future.done():
                groups[0].future.set_result(result)
            return
        size = self._executor.pool.bytes_per_token
        read = result.read(sum(len(group.rows) for group in groups))
        start = 0
        for group in groups:
            stop = start + len(group.rows)
            cost = Ledger(ticks=1, seconds=result.cost.seconds, kv_written=group.tokens * size)
            cost.kv_read = round(sum(read[start:stop]) * size)
            for row in group.rows:
                cost.add(row.spent)
            if not group.future.done():
                group.future.set_result(result.part(start, group.rows, cost))
            start = stop
