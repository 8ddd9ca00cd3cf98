"""A run: a program with its workers, budget, ledger and trace, on one engine.

Programs are written against ``Run``: they arrange views, feed tokens and call ``tick``. Everything that decides a
token passes through here, so that every program is budgeted, traced, replayable and resumable alike.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from kvorum.engine import text
from kvorum.engine.budget import Budget, Ledger
from kvorum.engine.owners import Owners
from kvorum.engine.row import Cost, Row
from kvorum.engine.scheduler import Reply
from kvorum.errors import BadRequest, OutOfPages
from kvorum.kv import Block, Span, View
from kvorum.runs.injection import Injection, Injector
from kvorum.runs.numbering import Told
from kvorum.runs.program import Program as Program
from kvorum.runs.program import Result as Result
from kvorum.runs.program import Task as Task
from kvorum.runs.program import WorkerResult as WorkerResult
from kvorum.runs.program import checked, described
from kvorum.runs.program import program as program
from kvorum.runs.prompts import Prompts, submit
from kvorum.runs.steering import Command as Command
from kvorum.runs.steering import Gate, spread
from kvorum.runs.trace import Script, Trace, checked_token
from kvorum.runs.worker import Worker, choose_names
from kvorum.sampling.sampling import Sampling, logprob
from kvorum.store.traces import Event
from kvorum.versions import TRACE

if TYPE_CHECKING:
    from pathlib import Path

    from kvorum.engine.engine import EngineCore

MAX_WORKERS = 64


class Spent(Exception):
    """The budget is used up; raised by ``Run.tick`` into a program that goes on all the same."""


class Run:
    """What a program works with. Made by ``arun``."""

    def __init__(
        self,
        engine: EngineCore,
        task: Task,
        *,
        names: Sequence[str],
        budget: Budget,
        sampling: Sampling,
        seed: int,
        trace: Trace,
        script: Script | None,
        reseed: Sequence[tuple[int, int]] = (),
        inject: Sequence[Injection] = (),
    ) -> None:
        self.engine = engine
        self.task = task
        self.budget = budget
        self.sampling = sampling
        self.seed = seed
        self.trace = trace
        self.told = Told()
        self.ledger = Ledger()
        self.workers: list[Worker] = []
        self.commands: deque[Command] = deque()
        self.gate = Gate()
        self.injected = Injector(self, inject, names)
        self.ends = text.end_tokens(engine.model, engine.tokenizer)
        self.outcome = "answered"
        self.differences: list[str] = []
        self._script = script
        self._reseed = [(int(tick), int(new)) for tick, new in reseed]
        self.prompts: Prompts | None = None
        self._steered = self._asked_to_answer = False
        self._ticks = self._forwards = self._asked = 0
        self._grace = False
        self.owners = Owners()
        for name in names:
            self.join(name)

    # -- people ------------------------------------------------------------------------------------------------

    def join(self, name: str) -> Worker:
        """A new worker. The program gives it a view before its first tick."""
        if any(worker.name == name for worker in self.workers):
            raise BadRequest(f"There is a worker named {name} already; names must differ.")
        if len(self.workers) >= MAX_WORKERS:
            raise BadRequest(f"A run has at most {MAX_WORKERS} workers.")
        worker = Worker(self, name, len(self.workers), self.sampling)
        self.workers.append(worker)
        return worker

    def take_commands(self, *, shared: bool = False) -> list[Command]:
        """The commands since the last tick; in a replay, those of the trace.

        ``shared``: the program has a history that all see and takes up ``share`` itself; otherwise everyone is told.
        """
        self._steered = True
        return self._take(shared)

    def _take(self, shared: bool) -> list[Command]:
        found = []
        if self._script is not None:
            told = self._script.take_commands(self._ticks)
            found = [Command(c["kind"], c.get("worker", ""), c.get("text", "")) for c in told]
        if not self.replaying:
            found += self.commands
            self.commands.clear()
        for command in found:
            self.trace.add("command", tick=self._ticks, **asdict(command))
        found += self.injected.commands()
        return found if shared else spread(found, [worker.name for worker in self.workers if worker.active])

    def _steer(self) -> None:
        """Take up commands in place of a program that never asks for them."""
        for command in self._take(shared=False):
            self._asked_to_answer |= command.kind == "answer"
            for worker in self.workers:
                if worker.name == command.worker and command.kind == "say":
                    worker.feed(self.encode(command.text))
                elif worker.name == command.worker and command.kind == "leave":
                    worker.active = False

    # -- text --------------------------------------------------------------------------------------------------

    def encode(self, words: str) -> list[int]:
        """Text to token ids, nothing added."""
        return text.encode(self.engine.tokenizer, words)

    def chat(self, *messages: tuple[str, str]) -> list[int]:
        """(role, content) pairs through the model's chat template."""
        return text.chat(self.engine.tokenizer, [{"role": role, "content": content} for role, content in messages])

    def vocabulary(self) -> dict[str, int]:
        """The tokenizer's tokens that the model can write, as it spells them, and their ids; no special ones."""
        return text.vocabulary(self.engine.tokenizer, self.engine.shape.vocab)

    def read(self, ids: Sequence[int]) -> str:
        """Token ids to text, special tokens left out."""
        return text.decode(self.engine.tokenizer, ids)

    # -- spending ----------------------------------------------------------------------------------------------

    @property
    def spent(self) -> str | None:
        """The budget's limit that is reached, or None; "asked" where somebody wants the answer now."""
        return "asked" if self._asked_to_answer else self.budget.spent(self.ledger)

    @property
    def replaying(self) -> bool:
        """Whether the next tick is one that the trace tells."""
        return self._script is not None and self._ticks < len(self._script)

    @property
    def caught_up(self) -> bool:
        """Whether there was nothing to replay."""
        return self._script is not None and not len(self._script)

    def grace(self) -> None:
        """Let the program go on beyond its budget, to force an answer. The ledger goes on counting."""
        self._grace = True
        self.outcome = "forced"

    @contextmanager
    def setting_up(self) -> Iterator[None]:
        """Within it the budget does not stop the run: a program's set-up is done whole, and counted, or not at all."""
        before, self._grace = self._grace, True
        try:
            yield
        finally:
            self._grace = before

    def block(self, name: str) -> Block:
        """A fresh block."""
        return self.engine.block(name)

    def note(self, kind: str, **data: Any) -> None:
        """Put something the program wants to tell into the trace."""
        self.trace.add("note", kind=kind, **data)

    async def outside(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What ``ask`` returns, something JSON can hold that does not come from the model: a tool's result, say.

        It is recorded in the trace; a replay takes it from there and asks nobody.
        """
        number = self._asked
        self._asked += 1
        known = None if self._script is None else self._script.outside.get(number)
        value = await ask() if known is None else known["value"]
        self.trace.add("outside", n=number, name=name, value=value)
        return value

    def move(self, items: Sequence[Block | Span], into: Block, worker: str) -> None:
        """Append tokens to ``into`` (see ``Engine.compact``) and say so in the trace."""
        tokens, start = sum(map(len, items)), len(into)
        self.engine.compact(items, into)
        self.credit(into, worker, start)
        self.ledger.kv_written += tokens * self.engine.pool.bytes_per_token
        number, sources = self.told.number(into), self.told.spans(items)
        self.trace.add("move", worker=worker, tokens=tokens, into=into.name, block=number, **{"from": sources})

    def credit(self, block: Block, name: str, *where: int) -> None:
        """Say for a tap whose words stand in ``block`` (see ``Owners.credit``). Ticks and moves do so themselves."""
        self.owners.credit(block, name, *where)

    async def forward(self, rows: Sequence[Row], costs: Sequence[Cost], *, hidden: bool = False) -> Reply:
        """A tick of any rows, without picking tokens, on this run's ledger."""
        reply = await self._forward(rows, costs, hidden=hidden)
        number, self._forwards = self._forwards, self._forwards + 1
        if self._script is not None and number < len(self._script.forwards):
            self.ledger.seconds = float(self._script.forwards[number]["seconds"])
        tokens = sum(row.count for row in rows)
        self.trace.add("forward", n=number, seconds=self.ledger.seconds, tokens=tokens, rows=self.told.rows(rows))
        if not (self.replaying or self._grace):
            await self.gate.passed(0)
        return reply

    async def _forward(self, rows: Sequence[Row], costs: Sequence[Cost], **options: Any) -> Reply:
        if self.spent and not self._grace:
            raise Spent
        reply = await submit(self.engine, self.prompts, rows, costs, **options)
        self.ledger.add(reply.cost)
        return reply

    async def prefill(self, view: View, ids: Sequence[int]) -> None:
        """Append known tokens to a view's open end; counted as prefill."""
        if ids:
            await self.forward([Row(view, ids=list(ids))], [Cost(0)])

    async def tick(self, workers: Sequence[Worker], also: Sequence[Row] = ()) -> None:
        """Feed each worker what is pending and pick its next token, which is pending from then on.

        ``also``: further rows of the same tick, of known tokens; they pick nothing and count as prefill.

        Raises:
            Spent: the budget is used up and ``grace`` was not called.
        """
        if not self._ticks and not self.replaying:
            await self.gate.passed(0)
        elif not self._steered:
            self._steer()
        rows = [worker.row() for worker in workers]
        costs = [Cost(worker.picked) for worker in workers] + [Cost(0)] * len(also)
        for worker in workers:
            self.credit(worker.own, worker.name)
        current = next((new for tick, new in reversed(self._reseed) if tick <= self._ticks), self.seed)
        seeds = [current if worker.sampling.seed is None else worker.sampling.seed for worker in workers]
        draws = [self.injected.asked(worker, seed) for worker, seed in zip(workers, seeds, strict=True)]
        draws += [None] * len(also)
        reply = await self._forward([*rows, *also], costs, owners=(tapped := self.owners.due(self._ticks)), draws=draws)
        told = self._told(workers, rows)
        if told is not None:
            self.ledger.seconds = float(told.get("seconds", self.ledger.seconds))
        lines = []
        for at, worker in enumerate(workers):
            logits = reply.output.logits[at]
            choice = self.injected.pick(worker, logits, seeds[at]) if draws[at] is None else reply.pick(at)
            token, chance = choice.id, choice.logprob
            if told is not None and int(told["rows"][at]["token"]) != choice.id:
                token = checked_token(told["rows"][at]["token"], len(logits))
                chance = logprob(logits, token)
                self.differences.append(f"tick {self._ticks}, {worker.name}: the trace has {token}, now {choice.id}")
            line: dict[str, Any] = {"worker": worker.name, "fed": rows[at].count}
            if given := worker.pending[worker.picked :]:
                line["given"] = self.read(given) if self.engine.tokenizer is not None else ""
            piece = worker.take(token, chance)
            lines.append({**line, "token": token, "text": piece, "logprob": round(chance, 4)})
        more = {"also": self.told.rows(also)} if also else {}
        spent = self.ledger.as_dict()
        self.trace.add("tick", n=self._ticks, seconds=self.ledger.seconds, ledger=spent, rows=lines, **more)
        if tapped is not None:
            self.trace.add("attention", n=self._ticks, **tapped.told([w.name for w in workers], reply.output.attention))
        self._ticks += 1
        if self._script is not None and self._ticks == len(self._script):
            self.trace.caught_up()
        if not self.replaying:
            await self.gate.passed(1)

    def _told(self, workers: Sequence[Worker], rows: Sequence[Row]) -> Event | None:
        if not self.replaying:
            return None
        assert self._script is not None
        here = [(worker.name, row.count) for worker, row in zip(workers, rows, strict=True)]
        return self._script.tick(self._ticks, here)


async def arun(
    engine: EngineCore,
    program: Program,
    task: Task | str,
    *,
    workers: int | Sequence[str] | None = None,
    budget: Budget | None = None,
    sampling: Sampling | None = None,
    seed: int | None = None,
    trace: str | Path | None = None,
    listener: Callable[[Event], None] | None = None,
    replay: Sequence[Event] | None = None,
    control: Callable[[Run], None] | None = None,
    reseed: Sequence[tuple[int, int]] = (),
    tap: int = 0,
    inject: Sequence[Injection] = (),
    prompts: Prompts | None = None,
    **params: Any,
) -> Result:
    """Let ``program`` solve ``task``.

    Args:
        workers: how many, or their names. budget: default 512 ticks. sampling: default temperature 0.6, top-p 0.95.
        seed: default the engine's. trace: a file for the trace, written as the run goes.
        listener: called with each event. replay: events of an earlier, perhaps unfinished, run of the same task: its
            tokens are taken from there, then the run goes on. control: gets the ``Run``, to send it commands.
        reseed: (tick, seed) pairs: from that tick on this seed, as in a run forked from another one's tick.
        tap: put whose words each worker attends to into the trace, in every so many-th tick; 0: never.
        inject: what is done beside the model. prompts: where prompts are that were encoded before.
        params: the program's own parameters.

    Raises:
        BadRequest, OutOfPages, BadTrace: each says what to do; the trace keeps what was done.
    """
    task = checked(program, task, budget, sampling, seed)
    params = program.check(params)
    names = choose_names(program.default_workers if workers is None else workers, MAX_WORKERS)
    if replay is None:
        program.check_workers(len(names))
    names = names[: program.most_workers]  # traces of before may have more, who did nothing
    program.check_private(task, names)
    budget = budget or Budget(ticks=512)
    sampling = sampling or Sampling(temperature=0.6, top_p=0.95)
    seed = engine.seed if seed is None else seed
    record = Trace(trace, listener)
    run = Run(
        engine,
        task,
        names=names,
        budget=budget,
        sampling=sampling,
        seed=seed,
        trace=record,
        script=None if replay is None else Script(replay),
        reseed=reseed,
        inject=inject,
    )
    if tap:
        run.owners.every = engine.check_tap(tap)
    run.prompts = prompts
    if control is not None:
        control(run)
    started = time.perf_counter()
    record.open(replaying=replay is not None)
    answer: str | None = None
    try:
        start = described(engine, program, task, names, budget, sampling, seed, params) | run.injected.as_start()
        record.add(
            "start", format=TRACE.newest, **start, **({"reseed": [list(pair) for pair in reseed]} if reseed else {})
        )
        if run.caught_up:
            record.caught_up()
        try:
            with suppress(Spent):
                answer = await program.function(run, **params)
        except TemplateError as error:
            raise BadRequest(f"The model's chat template cannot be used: {error}.") from error
        except OutOfPages:
            record.add("note", kind="out_of_pages", free=engine.pool.free_tokens)
            raise
        outcome = "none" if answer is None else run.outcome
        record.add("end", outcome=outcome, answer=answer, spent=run.spent, ledger=run.ledger.as_dict())
        record.caught_up()
    finally:
        record.close()
    return Result(
        answer=answer,
        outcome=outcome,
        spent=run.spent,
        workers=[WorkerResult(worker.name, list(worker.ids), worker.text) for worker in run.workers],
        ledger=run.ledger,
        trace=record,
        seconds=time.perf_counter() - started,
        score=None if task.verify is None else float(task.verify(answer)),
        differences=run.differences,
    )
