"""The executor: one tick from checked rows to output, on a backend.

Takes room in the rows' blocks, plans, has the backend compute, and says what it cost. Whatever breaks a tick off leaves
the blocks as they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from kvorum.attention.copies import Copies
from kvorum.attention.plan import Plan, Planner
from kvorum.backends.backend import Backend, Work
from kvorum.engine.admission import CheckedRow, admit, check_rows
from kvorum.engine.budget import Ledger
from kvorum.engine.owners import Owners, Tapped
from kvorum.engine.row import Cost, Output, Row
from kvorum.errors import BadRequest
from kvorum.kv import PagePool, unchanged_on_error
from kvorum.sampling.sampler import Draw
from kvorum.sampling.sampling import Pick


@dataclass(slots=True, eq=False)
class Batch:
    """The rows of one tick, and what is wanted of each.

    ``every``: per row, whether all its tokens' logits are wanted. ``owners``: per row, where its attention is tapped.
    ``draws``: per row, the token to draw. Each is empty where no row wants it.
    """

    rows: Sequence[CheckedRow]
    hidden: bool = False
    every: Sequence[bool] = ()
    owners: Sequence[Owners | None] = ()
    draws: Sequence[Draw | None] = ()


@dataclass(slots=True, eq=False)
class Ticked:
    """A tick that was run: its output, its plan, the drawn tokens per row, and what it cost."""

    output: Output
    plan: Plan
    picks: Sequence[Pick | BadRequest | None]
    cost: Ledger


class Executor:
    """Runs ticks on one backend."""

    def __init__(self, backend: Backend, prefill_chunk: int) -> None:
        if prefill_chunk < 1:
            raise BadRequest(f"prefill_chunk={prefill_chunk} must be at least 1.")
        self.backend = backend
        self.pool = PagePool(backend.cache)
        self.prefill_chunk = min(prefill_chunk, backend.shape.max_tokens or prefill_chunk)
        self.ledger = Ledger()
        # A copy in a narrower cache would be rounded once more than what it stands for.
        exact = backend.cache.dtype == backend.dtype
        self.planner = Planner(copies=Copies(self.pool, backend.carry) if exact else None)

    def check(self, rows: Sequence[Row], costs: Sequence[Cost] | None = None) -> list[CheckedRow]:
        """The rows, each checked by itself; see ``admission.check_rows``."""
        checked = check_rows(rows, costs, self.pool, self.backend.shape)
        if any(row.embeds is not None for row in checked) and (lack := self.backend.lacks_latent()) is not None:
            raise lack
        return checked

    def admit(self, rows: Sequence[CheckedRow]) -> None:
        """Check that the rows can share a tick now; see ``admission.admit``."""
        admit(rows, self.pool, self.backend.shape)

    def run(self, batch: Batch) -> Ticked:
        """Run a tick of admitted rows. On any error, an interrupt too, the blocks are as they were."""
        started = time.perf_counter()
        rows = batch.rows
        with unchanged_on_error([row.own for row in rows]):
            for row in rows:
                row.own.append(row.ids)
            tapped = Tapped(rows, batch.owners, self.pool, len(self.backend.shape.layers)) if batch.owners else None
            counts = [row.count for row in rows]
            plan = self.planner.plan([row.view for row in rows], counts, copied=tapped is None)
            wanted, lasts, pieces = _wanted(counts, batch.every)
            done = self.backend.forward(
                Work(
                    plan=plan,
                    ids=[token for row in rows for token in row.ids],
                    embeds=_embeds(rows),
                    wanted=wanted,
                    lasts=lasts,
                    hidden=batch.hidden,
                    draws=batch.draws,
                    tap=None if tapped is None else tapped.tap,
                )
            )
            hidden = done.hidden if done.hidden is None or lasts is None else done.hidden[lasts]
            seen = None if tapped is None or done.shares is None else tapped.seen(done.shares)
            kept = _Kept(done.logits, lasts)
            output = Output(kept.handed_out, lasts, hidden, pieces, seen)
            for at, row in enumerate(rows):
                row.own.set_logits(partial(kept.line, at))
        size = self.pool.bytes_per_token
        cost = Ledger(ticks=1, kv_read=plan.read * size, kv_written=plan.tokens * size)
        for row in rows:
            cost.add(row.spent)
        cost.seconds = time.perf_counter() - started
        self.ledger.add(cost)
        return Ticked(output, plan, done.picks, cost)


class _Kept:
    """The rows' logits as their blocks keep them, whatever becomes of the logits that are handed out."""

    def __init__(self, fetch: Callable[[], Tensor], lasts: Tensor | None) -> None:
        self._fetch, self._lasts = fetch, lasts

    @cached_property
    def _lines(self) -> Tensor:
        whole = self._fetch()
        return whole.clone() if self._lasts is None else whole[self._lasts]

    def line(self, at: int) -> Tensor:
        """Logits ``[vocab]`` after the last token of row ``at``."""
        return self._lines[at]

    def handed_out(self) -> Tensor:
        """The logits of every wanted token, for somebody who may write to them: the lines are copied before."""
        _ = self._lines
        return self._fetch()


def _wanted(counts: Sequence[int], every: Sequence[bool]) -> tuple[Tensor, Tensor | None, tuple[slice, ...] | None]:
    """The tokens whose logits are wanted, which of these are the rows' last, and which are each row's (None: one)."""
    ends = list(accumulate(counts))
    if not any(every):
        return torch.from_numpy(np.array(ends) - 1), None, None
    places: list[int] = []
    pieces = []
    for count, end, whole in zip(counts, ends, every, strict=True):
        start = len(places)
        places += range(end - count if whole else end - 1, end)
        pieces.append(slice(start, len(places)))
    return torch.tensor(places), torch.tensor([piece.stop - 1 for piece in pieces]), tuple(pieces)


def _embeds(rows: Sequence[CheckedRow]) -> list[tuple[int, Tensor]]:
    found, start = [], 0
    for row in rows:
        if row.embeds is not None:
            found.append((start, row.embeds))
        start += row.count
    return found
