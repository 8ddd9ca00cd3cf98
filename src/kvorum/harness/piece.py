"""Pieces: texts that workers write side by side, each under a sampling, stop strings and a length of its own.

For programs that fan out: a worker writes one piece after the other, and all that are open share ticks.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.errors import BadRequest, GrammarError
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker
from kvorum.sampling.sampling import Sampling


class Piece:
    """What ``worker`` writes from now on: ``text``, until there is a ``finish``.

    ``finish`` is None as long as it is open, then "end" (an end token), "grammar" (nothing but an end can follow),
    "stop" (a stop string; ``text`` ends before it), "length", "left" (somebody let the worker go) or "failed"
    (``worker.failed`` says why).

    Args:
        sampling: how it is written; None: as the worker's last one. Its grammar begins at its beginning.
        stop: texts at which it ends. tokens: the most that it may have; None: no limit but the budget.
        forced: feed what the grammar forces at once, in place of picking it token by token.
    """

    def __init__(
        self,
        worker: Worker,
        sampling: Sampling | None = None,
        *,
        stop: Sequence[str] = (),
        tokens: int | None = None,
        forced: bool = True,
    ) -> None:
        worker.begin(sampling)
        self.text = ""
        """What it is so far, without the stop string."""
        self.worker, self.stop, self.tokens, self.forced = worker, stop, tokens, forced
        self.finish: str | None = None
        self._start, self._first = len(worker.text), len(worker.ids)
        self._look(None)

    def look(self, ends: frozenset[int]) -> None:
        """Take note of the token that was just picked; ``ends`` are the ids that end a text."""
        self._look(self.worker.ids[-1] if self.worker.ids else None, ends)

    def _look(self, picked: int | None, ends: frozenset[int] = frozenset()) -> None:
        worker = self.worker
        if picked not in ends and self.forced:
            worker.force()
        written = worker.text[self._start :]
        stops = [at for mark in self.stop if mark and (at := written.find(mark)) >= 0]
        self.text = written[: min(stops) if stops else None]
        if worker.failed is not None:
            self.finish = "failed"
        elif picked in ends:
            self.finish = "end"
        elif stops:
            self.finish = "stop"
        elif worker.complete:
            self.finish = "grammar"
        elif self.tokens is not None and len(worker.ids) - self._first >= self.tokens:
            self.finish = "length"
        elif not worker.active:
            self.finish = "left"


async def write(run: Run, pieces: Sequence[Piece]) -> None:
    """Let the pieces' workers write, all in the same ticks, until each piece has its finish or the budget is spent.

    A worker that fails ends its own piece alone.
    """
    while not run.spent and (open_ones := [piece for piece in pieces if piece.finish is None]):
        try:
            await run.tick([piece.worker for piece in open_ones])
        except (BadRequest, GrammarError):
            if not any(piece.worker.failed for piece in open_ones):
                raise
        for piece in open_ones:
            piece.look(run.ends)
