"""Rows: many short pieces of writing behind the same texts, as many at once as were asked for and the cache has room.

What a row does is a script, a generator of pieces: it yields a ``Piece`` and is handed back what was written for it. So
a program says what one row does from its first word to its last, and all rows share ticks. What the first pieces of
all rows begin with is encoded once, in the same tick as the rest of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from kvorum.engine.row import Row
from kvorum.errors import OutOfPages
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

Finish: TypeAlias = Literal["end", "chosen", "length", "loop", "cut"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What a row does next: it is fed ``ids``, and then writes at most ``tokens`` tokens, until it ends its text.

    ``choice``: it writes no more than it takes to choose one of these. ``sampling``: None takes the run's.
    """

    ids: Sequence[int]
    tokens: int
    sampling: Sampling | None = None
    choice: Passages | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a piece: its text and ids, the ticks and seconds that it took, and why it ended.

    ``finish``: "end" (the model ended its text), "chosen", "length" (as many tokens as it may), "loop" (it wrote the
    same over and over, and the run ends such), or "cut" (the budget is used up, or the row was told to leave).
    """

    text: str
    ids: Sequence[int]
    ticks: int
    seconds: float
    finish: Finish


Script: TypeAlias = Generator[Piece, Written, None]


@dataclass(slots=True, eq=False)
class Job:
    """A row to be: the ``name`` of its worker, its ``script``, which has not begun, the ``ids`` of the script's first
    piece, and how many tokens all its pieces take at most."""

    name: str
    script: Script
    ids: Sequence[int]
    room: int


@dataclass(slots=True, eq=False)
class _Active:
    """A row at work: its piece, and where and when that began."""

    worker: Worker
    script: Script
    piece: Piece
    ids: int = 0
    text: int = 0
    ticks: int = 0
    started: float = field(default_factory=time.perf_counter)

    def written(self, finish: Finish) -> Written:
        worker = self.worker
        seconds = time.perf_counter() - self.started
        return Written(worker.text[self.text :], worker.ids[self.ids :], self.ticks, seconds, finish)

    def allow(self, logits: Tensor) -> Tensor | None:
        """Which ids the piece lets the worker pick."""
        if self.piece.choice is None:
            return None
        allowed = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        allowed[self.piece.choice.allowed(self.worker.ids[self.ids :])] = True
        return allowed

    def go_on(self, finish: Finish, ends: frozenset[int]) -> bool:
        """Hand the script what was written, and begin its next piece; False where it has none."""
        try:
            self.piece = self.script.send(self.written(finish))
        except StopIteration:
            return False
        worker = self.worker
        if worker.pending and worker.pending[-1] in ends:  # the next piece says what stands there
            worker.pending.pop()
            worker.picked = 0
        worker.feed(self.piece.ids)
        self.ids, self.text, self.ticks, self.started = len(worker.ids), len(worker.text), 0, time.perf_counter()
        return True


async def write_rows(run: Run, blocks: Sequence[Block], jobs: Sequence[Job], *, most: int) -> None:
    """Let every job's script run to its end behind ``blocks``, ``most`` at once; their workers are added to the run's.

    What does not fit the cache waits for its turn. At the budget's end rows at work are handed what they have as "cut",
    and those that have not begun are closed.

    Raises:
        OutOfPages: one row alone does not fit.
    """
    waiting, active = deque(jobs), list[_Active]()
    head = _Head(run, blocks, [job.ids for job in jobs])
    try:
        while (waiting or active) and not run.spent:
            await _admit(run, head, waiting, active, most)
            for row in active:
                row.worker.sampling = row.piece.sampling or run.sampling
                row.worker.allow = None if row.piece.choice is None else row.allow
            await run.tick([row.worker for row in active], also=head.rows())
            active = [row for row in active if _goes_on(row, run.ends)]
    except Spent:
        pass
    for row in active:
        with suppress(StopIteration):
            row.script.send(row.written("cut"))
        row.script.close()
        row.worker.view = View()
    for job in waiting:
        job.script.close()


def _goes_on(row: _Active, ends: frozenset[int]) -> bool:
    """Whether a row has more to write after a tick; where it has not, its pages are free."""
    row.ticks += 1
    worker, piece = row.worker, row.piece
    finish: Finish | None = None
    if not worker.active:
        finish = "loop" if worker.loop is not None else "cut"
    elif piece.choice is not None and piece.choice.decided(worker.ids[row.ids :]):
        finish = "chosen"
    elif worker.ids[-1] in ends:
        finish = "end"
    elif len(worker.ids) - row.ids >= piece.tokens:
        finish = "length"
    if finish is None or (row.go_on(finish, ends) and worker.active):
        return True
    row.script.close()
    worker.view = View()
    return False


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
        active.append(_Active(worker, job.script, next(job.script)))


class _Head:
    """What the first pieces of all rows begin with: a block behind the texts, encoded once, when it is first needed."""

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
