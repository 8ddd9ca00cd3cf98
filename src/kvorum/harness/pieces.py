"""Pieces: texts that workers write side by side, each under a sampling, stop strings and a length of its own.

For programs that fan out. ``write``: the workers that there are write one piece each. ``write_rows``: many workers
behind the same texts, as many at once as were asked for and the cache has room; each follows a script, a generator that
yields its pieces one after the other and goes on when one is written. So a program says what one row does from its
first word to its last, and all rows share ticks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from kvorum.engine.row import Row
from kvorum.errors import BadRequest, GrammarError, OutOfPages
from kvorum.harness.chain_of_thought import common_start
from kvorum.harness.passages import Passages
from kvorum.harness.shared_text import encode
from kvorum.kv import Block, View
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent
from kvorum.runs.worker import Worker
from kvorum.sampling.sampling import Sampling

WAVE = 2048
"""The most tokens of first pieces that go through the model in one tick, beside those of the first of them."""

Finish: TypeAlias = Literal["end", "grammar", "stop", "chosen", "length", "loop", "cut", "failed"]


class Piece:
    """What ``worker`` writes from now on: ``text``, until there is a ``finish``.

    ``finish`` is None as long as it is open, then "end" (an end token), "grammar" (nothing but an end can follow),
    "stop" (a stop string; ``text`` ends before it), "chosen" (one of the ``choice``), "length", "loop" (it wrote the
    same over and over, and the run ends such), "cut" (somebody let the worker go, or the budget of its rows is used up)
    or "failed" (``worker.failed`` says why). ``ticks``, ``seconds``: what it took.

    Args:
        sampling: how it is written; None: as the worker's last one. Its grammar begins at its beginning.
        stop: texts at which it ends. tokens: the most that it may have; None: no limit but the budget.
        forced: feed what the grammar forces at once, in place of picking it token by token.
        choice: write no more than it takes to choose one of these.
    """

    def __init__(
        self,
        worker: Worker,
        sampling: Sampling | None = None,
        *,
        stop: Sequence[str] = (),
        tokens: int | None = None,
        forced: bool = True,
        choice: Passages | None = None,
    ) -> None:
        worker.begin(sampling)
        self.text = ""
        """What it is so far, without the stop string."""
        self.worker, self.stop, self.tokens, self.forced, self.choice = worker, stop, tokens, forced, choice
        self.finish: Finish | None = None
        self.ticks, self.seconds = 0, 0.0
        self._start, self._first, self._began = len(worker.text), len(worker.ids), time.perf_counter()
        if choice is not None:
            worker.allow = self._allowed
        self._look(None)

    @property
    def ids(self) -> list[int]:
        """Its tokens so far."""
        return self.worker.ids[self._first :]

    def _allowed(self, logits: Tensor) -> Tensor:
        """Which ids may be picked now."""
        assert self.choice is not None
        allowed = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        allowed[self.choice.allowed(self.ids)] = True
        return allowed

    def look(self, ends: frozenset[int]) -> None:
        """Take note of the token that was just picked; ``ends`` are the ids that end a text."""
        self.ticks += 1
        self._look(self.worker.ids[-1] if self.worker.ids else None, ends)

    def _look(self, picked: int | None, ends: frozenset[int] = frozenset()) -> None:
        worker = self.worker
        if picked not in ends and self.forced:
            worker.force()
        written = worker.text[self._start :]
        stops = [at for mark in self.stop if mark and (at := written.find(mark)) >= 0]
        self.text = written[: min(stops) if stops else None]
        finish: Finish | None = None
        if worker.failed is not None:
            finish = "failed"
        elif self.choice is not None and self.ids and self.choice.decided(self.ids):
            finish = "chosen"
        elif picked in ends:
            finish = "end"
        elif stops:
            finish = "stop"
        elif worker.complete:
            finish = "grammar"
        elif self.tokens is not None and len(self.ids) >= self.tokens:
            finish = "length"
        elif not worker.active:
            finish = "cut" if worker.loop is None else "loop"
        if finish is not None:
            self.end(finish)

    def end(self, finish: Finish) -> None:
        """It ends here."""
        self.finish, self.seconds = finish, time.perf_counter() - self._began
        if self.choice is not None:
            self.worker.allow = None


async def tick(run: Run, pieces: Sequence[Piece], also: Sequence[Row] = ()) -> None:
    """A tick of the workers of open pieces, and of ``also`` as in ``Run.tick``; one that fails ends its piece alone."""
    try:
        await run.tick([piece.worker for piece in pieces], also)
    except (BadRequest, GrammarError):
        if not any(piece.worker.failed for piece in pieces):
            raise
    for piece in pieces:
        piece.look(run.ends)


async def write(run: Run, pieces: Sequence[Piece]) -> None:
    """Let the pieces' workers write, all in the same ticks, until each piece has its finish or the budget is spent."""
    while not run.spent and (open_ones := [piece for piece in pieces if piece.finish is None]):
        await tick(run, open_ones)


Script: TypeAlias = Generator[Piece, None, None]


@dataclass(slots=True, eq=False)
class Job:
    """A row to be: the ``name`` of its worker, the ``script`` that this worker follows, the ``ids`` that it is fed
    before its first piece, and how many tokens all that it is fed and writes takes at most."""

    name: str
    script: Callable[[Worker], Script]
    ids: Sequence[int]
    room: int


@dataclass(slots=True, eq=False)
class _Active:
    """A row at work, with the piece that it writes."""

    script: Script
    piece: Piece

    def goes_on(self) -> bool:
        """Whether it has more to write after a tick; where it has not, its pages are free."""
        with suppress(StopIteration):
            while self.piece.finish is not None:
                self.piece = next(self.script)
            return True
        self.piece.worker.view = View()
        return False


async def write_rows(run: Run, blocks: Sequence[Block], jobs: Sequence[Job], *, most: int) -> None:
    """Let every job's script run to its end behind ``blocks``, ``most`` at once; their workers are added to the run's.

    What the jobs' ids begin with is encoded once, in the same tick as the rest of them. What does not fit the cache
    waits for its turn. At the budget's end the pieces of rows at work are "cut", which their scripts can take note of,
    and rows that have not begun never do.

    Raises:
        OutOfPages: one row alone does not fit.
    """
    waiting, active = deque(jobs), list[_Active]()
    head = _Head(run, blocks, [job.ids for job in jobs])
    try:
        while (waiting or active) and not run.spent:
            await _admit(run, head, waiting, active, most)
            await tick(run, [row.piece for row in active], head.rows())
            active = [row for row in active if row.goes_on()]
    except Spent:
        pass
    for row in active:
        row.piece.end("cut")
        with suppress(StopIteration):
            next(row.script)
        row.script.close()
        row.piece.worker.view = View()


async def _admit(run: Run, head: _Head, waiting: deque[Job], active: list[_Active], most: int) -> None:
    """Begin with jobs that wait, as far as rows, cache and the wave's tokens allow."""
    tokens = 0
    while waiting and len(active) < most:
        job = waiting[0]
        ids = job.ids[head.length :]
        if tokens and tokens + len(ids) > WAVE:
            return
        own = run.block(job.name)
        try:
            head.reserve()
            own.reserve(job.room - head.length)
        except OutOfPages:
            if active:
                return
            free = run.engine.pool.free_tokens
            raise OutOfPages(
                f"{job.name} takes up to {job.room:,} tokens of cache and {free:,} are free: load with a larger "
                "kv_tokens (--kv-tokens), or ask for less."
            ) from None
        waiting.popleft()
        worker = run.add_worker(job.name)
        worker.view = View(*head.view.items, own)
        if len(ids) > run.engine.prefill_chunk:
            await head.encode()
            await encode(run, worker.view, ids[:-1])
            ids = ids[-1:]
        worker.feed(ids)
        tokens += len(ids)
        script = job.script(worker)
        active.append(_Active(script, next(script)))


class _Head:
    """What the ids of all jobs begin with: a block behind the texts, encoded once, when it is first needed."""

    def __init__(self, run: Run, blocks: Sequence[Block], prompts: Sequence[Sequence[int]]) -> None:
        self._run = run
        self._ids = common_start([ids[:-1] for ids in prompts]) if len(prompts) > 1 else []
        self._block = run.block("begin") if len(self._ids) > 1 else None
        self.length = 0 if self._block is None else len(self._ids)
        self.view = View(*blocks) if self._block is None else View(*blocks, self._block)

    def reserve(self) -> None:
        """Take its pages. Raises OutOfPages."""
        if self._block is not None and not len(self._block):
            self._block.reserve(self.length)

    def rows(self) -> list[Row]:
        """The row of a tick that encodes it, if it is not encoded yet."""
        return [Row(self.view, ids=self._ids)] if self._block is not None and not len(self._block) else []

    async def encode(self) -> None:
        """Encode it by itself, before a row that is too long for a tick with others."""
        if self.rows():
            await encode(self._run, self.view, self._ids)
