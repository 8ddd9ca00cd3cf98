"""A run as its program sees it: workers, ticks, text, what was spent, and what is asked of it from outside.

Programs are written against ``Run``: they arrange views, feed tokens and call ``tick``. Everything that decides a
token passes through here, so that every program is budgeted, traced, replayable and resumable alike. How a run begins
and ends is in ``start``, what it shares with the runs inside it in ``state``, what its trace says in ``recorder``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Any, ParamSpec, TypeVar

from kvorum.engine import text
from kvorum.engine.budget import Ledger
from kvorum.engine.detokenizer import decode
from kvorum.engine.owners import Owners
from kvorum.engine.row import Cost, Row
from kvorum.engine.tick_result import TickResult
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.kv import Block, Span, View
from kvorum.runs.injection import Injection, Injections
from kvorum.runs.loops import OnLoop
from kvorum.runs.outside import JsonValue, ask_outside, keep_new_trace
from kvorum.runs.picks import take_picks
from kvorum.runs.program import Task
from kvorum.runs.recorder import Recorder, Scope
from kvorum.runs.spending import Spender
from kvorum.runs.state import RunState
from kvorum.runs.steering import Command, spread
from kvorum.runs.worker import MAX_WORKERS, Worker, known_cost
from kvorum.sampling.matcher import Matcher
from kvorum.sampling.sampling import Draw, Sampling

P = ParamSpec("P")
T = TypeVar("T")


class Run(Spender):
    """What a program works with. Made by ``arun``, and by ``inside`` for a program inside another.

    ``task`` is what to solve and ``workers`` are who solves it; ``sampling`` and ``seed`` say how tokens are picked,
    ``ends`` are the ids that end a text, and ``ledger`` is what was spent. ``outcome`` is how the answer came about:
    "answered", or "forced" after ``close``; ``product`` is for what a program makes beside the answer, of whatever
    kind: ``Result`` hands it on. ``engine`` is below it all.

    ``state`` is shared with the runs around and inside it, ``scope`` is where it stands among them, and ``injections``
    are what is done to workers beside the model. ``commands`` take what somebody asks of it, ``gate`` holds it.
    ``allowance`` is what it may spend. ``loops``: whether a worker that loops is to "go_on", or to "end".
    """

    def __init__(
        self,
        state: RunState,
        task: Task,
        *,
        names: Sequence[str],
        sampling: Sampling,
        seed: int,
        scope: Scope | None = None,
        inject: Sequence[Injection] = (),
    ) -> None:
        super().__init__(state.purse)
        self.state = state
        self.scope = scope or Scope()
        self.engine = state.engine
        self.ledger, self.owners, self.trace = state.ledger, state.owners, state.trace
        self.gate, self.commands = state.gate, state.commands
        self.task = task
        self.sampling, self.seed = sampling, seed
        self.ends = state.engine.ends
        self.workers: list[Worker] = []
        self.outcome = "answered"
        self.loops: OnLoop = "go_on"
        self.product: Any = None
        self._recorder = Recorder(state, self.scope)
        self.injections = Injections(inject, names, state.engine, self._recorder)
        self._program_takes_commands = False
        for name in names:
            self.join(name)

    def encode(self, words: str) -> list[int]:
        """Text to token ids, nothing added. Raises BadRequest where the engine has no tokenizer."""
        return text.encode(self.engine.tokenizer, words)

    def chat(self, *messages: tuple[str, str]) -> list[int]:
        """(role, content) pairs in the chat template, up to where the assistant begins (``state.prompt``)."""
        given = [{"role": role, "content": content} for role, content in messages]
        return list(self.state.prompt(given)["ids"])

    def read(self, ids: Sequence[int]) -> str:
        """Token ids to text, special tokens left out; "" where the engine has no tokenizer."""
        return "" if self.engine.tokenizer is None else decode(self.engine.tokenizer, ids)

    def vocabulary(self) -> dict[str, int]:
        """The tokenizer's tokens that the model can write, as it spells them, and their ids; no special ones."""
        return text.vocabulary(self.engine.tokenizer, self.engine.shape.vocab)

    # -- workers -----------------------------------------------------------------------------------------------

    def join(self, name: str) -> Worker:
        """A new worker. The program gives it a view before its first tick.

        Raises:
            BadRequest: the name is taken, or the run has as many workers as it may.
        """
        if any(worker.name == name for worker in self.workers):
            raise BadRequest(f"There is a worker named {name} already; names must differ.")
        if len(self.workers) >= MAX_WORKERS:
            raise BadRequest(f"A run has at most {MAX_WORKERS} workers.")
        return self.add_worker(name)

    def add_worker(self, name: str) -> Worker:
        """A new worker that the program itself needs, such as a branch; as many as it likes."""
        worker = self.make_worker(name, len(self.workers))
        self.workers.append(worker)
        return worker

    def make_worker(self, name: str, index: int) -> Worker:
        """A worker that does not count among the run's; ``index`` numbers its draws."""
        worker = Worker(name, index, self.sampling, self.engine.tokenizer, self.engine.grammars.matcher, self._recorder)
        _ = worker.matcher  # a grammar that cannot be used is refused before the first token
        return worker

    def dismiss_workers(self) -> None:
        """Let all workers go, for a program that adds its own."""
        self.workers.clear()

    def take_commands(self, *, shared: bool = False) -> list[Command]:
        """The commands since the last tick; in a replay, those of the trace.

        ``shared``: the program has a history that all see and takes up ``share`` itself; otherwise everyone is told.
        """
        if self.scope.nested:
            return []
        self._program_takes_commands = True
        return self._new_commands(shared=shared)

    def _new_commands(self, *, shared: bool) -> list[Command]:
        found = self.state.take_commands() + self.injections.commands(self.workers)
        return found if shared else spread(found, [worker.name for worker in self.workers if worker.active])

    def _steer(self) -> None:
        """Do what commands say in the place of a program that does not take them."""
        for command in self._new_commands(shared=False):
            self.state.purse.asked |= command.kind == "answer"
            for worker in self.workers:
                if worker.name == command.worker and command.kind == "say":
                    worker.feed(self.encode(command.text))
                elif worker.name == command.worker and command.kind == "leave":
                    worker.active = False

    def force(self) -> None:
        """From now on the program asks for an answer that nobody has given."""
        self.allowance.close()
        self.injections.lifted = True
        self.outcome = "forced"

    # -- blocks ------------------------------------------------------------------------------------------------

    def block(self, name: str) -> Block:
        """A fresh, empty, open block of the engine, by the name that the trace uses."""
        return self.engine.block(self.scope.name(name))

    def copy(self, items: Sequence[Block | Span], into: Block, worker: str = "") -> None:
        """Append tokens to ``into`` (see ``Engine.compact``) as ``worker``'s words, or nobody's; counted as written."""
        start = len(into)
        self.engine.compact(items, into)
        if worker:
            self.credit(into, worker, start)
        self._count_written(len(into) - start)

    def move(self, items: Sequence[Block | Span], into: Block, worker: str) -> None:
        """``copy``, and say so in the trace."""
        self.copy(items, into, worker)
        self._recorder.move(worker, items, into)

    def imitate(self, block: Block, kind: str, *, seed: int) -> Block:
        """A sealed block as long as ``block`` that holds nothing of it (see ``Engine.imitate``); counted as written."""
        made = self.engine.imitate(block, kind, seed=seed)
        self._count_written(len(made))
        return made

    def _count_written(self, tokens: int) -> None:
        """Count keys and values that were written without a forward pass: copied or imitated."""
        self.ledger.kv_written += tokens * self.engine.pool.bytes_per_token

    def credit(self, block: Block, name: str, start: int | None = None, end: int | None = None) -> None:
        """Say for a tap whose words stand in ``block`` (see ``Owners.credit``). Ticks and moves do so themselves."""
        self.owners.credit(block, self.scope.name(name) if name else "", start, end)

    def note(self, kind: str, **data: Json) -> None:
        """Put something the program wants to tell into the trace."""
        self._recorder.note(kind, data)

    async def beside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``work`` gives, while other runs go on. Inside another run it is done at once: the order in which runs
        there tick, which a replay repeats, must not depend on a clock."""
        return work(*args, **kwargs) if self.scope.nested else await asyncio.to_thread(work, *args, **kwargs)

    async def outside(
        self, name: str, ask: Callable[[], Awaitable[JsonValue]], *, interrupted: JsonValue | None = None
    ) -> JsonValue:
        """What ``ask`` returns, something JSON can hold that does not come from the model: a tool's result, say.

        It is recorded in the trace; a replay takes it from there and asks nobody. With ``interrupted`` it is asked at
        most once, whenever the process dies: where the trace says that it was asked and not what came of it, that is
        the value.
        """
        return await ask_outside(self.state, self._recorder, name, ask, interrupted)

    # -- ticks -------------------------------------------------------------------------------------------------

    async def prefill(self, view: View, ids: Sequence[int]) -> None:
        """Append known tokens to a view's open end; counted as prefill."""
        if ids:
            await self.forward([Row(view, ids=list(ids))], [Cost(0)])

    async def forward(self, rows: Sequence[Row], costs: Sequence[Cost], *, hidden: bool = False) -> TickResult:
        """A tick of any rows, without picking tokens, on this run's ledger.

        Raises:
            Spent: too little of the budget is left.
        """
        reply = await self._submit(rows, costs, hidden=hidden)
        state, number = self.state, self.state.forwards
        state.forwards += 1
        if number < len(state.recording.forwards):
            self.ledger.seconds = float(state.recording.forwards[number]["seconds"])
        self._recorder.forward(number, rows)
        if not (state.replaying or self.undisturbed or self.allowance.closing):
            await self.gate.passed(0)
        return reply

    async def tick(self, workers: Sequence[Worker], also: Sequence[Row] = ()) -> None:
        """Feed each worker what is pending and pick its next token, which is pending from then on.

        ``also``: further rows, of known tokens, that pick nothing and count as prefill. A worker for which no token is
        left, or whose grammar ends there, has ``failed`` and is not ``active`` any more; the others have their tokens
        when its error is raised, and may go on.

        Raises:
            Spent: too little of the budget is left.
            BadRequest, GrammarError: a worker has failed.
        """
        state = self.state
        if not state.ticks and not state.replaying:
            await self.gate.passed(0)
        elif not (self.scope.nested or self._program_takes_commands):
            self._steer()
        rows = [worker.row() for worker in workers]
        costs = [Cost(worker.picked) for worker in workers] + [Cost(0)] * len(also)
        for worker in workers:
            self.credit(worker.own, worker.name)
            worker.restart()
        seed, tapped = state.seed(self.seed), self.owners.due(state.ticks)
        asked = [worker.draw(seed, self.scope.view(worker.view)) for worker in workers]
        draws = [None if self.injections.waits(worker) else one for worker, one in zip(workers, asked, strict=True)]
        matchers = [worker.matcher for worker in workers]
        loaded = known_cost(workers, self.engine.pool.bytes_per_token)
        with self.allowance.spending(loaded) if loaded.prefill else nullcontext():
            reply = await self._submit([*rows, *also], costs, owners=tapped, draws=draws, matchers=matchers)
            self.ledger.add(loaded)
        lines, errors = take_picks(state, self.scope, self.injections, workers, asked, reply)
        self._recorder.tick(lines, also)
        for worker in workers if state.recording.version > 3 else ():
            worker.notice_loop(self.ends, end=self.loops == "end")
        if tapped is not None:
            self._recorder.attention(tapped, [worker.name for worker in workers], reply.output.attention)
        state.ticks += 1
        keep_new_trace(state)
        if not state.replaying:
            await self.gate.passed(1)
        if errors:
            raise errors[0]

    async def _submit(
        self,
        rows: Sequence[Row],
        costs: Sequence[Cost],
        *,
        hidden: bool = False,
        owners: Owners | None = None,
        draws: Sequence[Draw | None] = (),
        matchers: Sequence[Matcher | None] = (),
    ) -> TickResult:
        """The rows behind what stands before this run's views, in the next tick; their cost goes to the ledger."""
        if self.scope.nested:
            rows = [Row(self.scope.view(row.view), row.ids, row.embeds, row.every) for row in rows]
        prompts = self.state.prompts if owners is None else None  # what is tapped is computed whole
        submit, cost = self.engine.scheduler.submit, self.engine.scheduler.cost(rows, costs)
        whole = nullcontext((rows, Ledger()))
        with self.allowance.spending(cost):
            async with whole if prompts is None else prompts.known(rows, costs) as (rest, saved):
                reply = await submit(rest, costs, hidden=hidden, owners=owners, draws=draws, matchers=matchers)
            self.ledger.add(reply.cost)
            self.ledger.add(saved)
        return reply
