"""The executor: one tick from checked rows to output, on a backend.

Takes room in the rows' blocks, plans, has the backend compute, and says what it cost. Whatever breaks a tick off leaves
the blocks as they were.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, repeat

import numpy as np
import torch
from torch import Tensor

from kvorum.attention.joined_copies import Copies
from kvorum.attention.plan import Planner
from kvorum.backends.backend import Backend, Work
from kvorum.engine.asked import Asked
from kvorum.engine.budget import Ledger
from kvorum.engine.owners import Owners
from kvorum.engine.row import CheckedRow, Cost, Output, Row
from kvorum.engine.row_checks import admit, check_rows
from kvorum.engine.speculation.guesses import Guesses
from kvorum.engine.speculation.speculation import Speculation
from kvorum.engine.tapped import Tapped
from kvorum.engine.tick_result import KeptLogits, TickResult
from kvorum.errors import BadRequest, KvorumError, OutOfPages
from kvorum.kv import PagePool
from kvorum.kv.block import unchanged_on_error
from kvorum.sampling.matcher import Matcher
from kvorum.sampling.sampling import Draw


class Executor:
    """Runs ticks on one backend."""

    def __init__(self, backend: Backend, prefill_chunk: int, *, speculate: bool = False) -> None:
        if prefill_chunk < 1:
            raise BadRequest(f"prefill_chunk={prefill_chunk} must be at least 1.")
        self.backend = backend
        self.pool = PagePool(backend.cache)
        self.prefill_chunk = min(prefill_chunk, backend.shape.max_tokens or prefill_chunk)
        self.ledger = Ledger()
        self.speculation = Speculation(backend.shape) if speculate else None
        """What is supposed of rows whose tokens are drawn; None: nothing ever."""
        # A copy in a narrower cache would be rounded once more than what it stands for.
        exact = backend.cache.dtype == backend.dtype
        self.planner = Planner(copies=Copies(self.pool, backend.carry) if exact else None)

    def check(
        self,
        rows: Sequence[Row],
        costs: Sequence[Cost] | None = None,
        *,
        every: bool = False,
        owners: Owners | None = None,
        draws: Sequence[Draw | None] = (),
        matchers: Sequence[Matcher | None] = (),
    ) -> list[CheckedRow]:
        """The rows, each checked by itself, and what is wanted of them; see ``row_checks.check_rows``."""
        checked = check_rows(rows, costs, self.pool, self.backend.shape)
        if any(row.embeds is not None for row in checked) and (lack := self.backend.lacks_latent()) is not None:
            raise lack
        if owners is not None and (lack := self.backend.lacks_tap()) is not None:
            raise lack
        for row, draw, matcher in zip(checked, draws or repeat(None), matchers or repeat(None), strict=False):
            row.every, row.owners, row.draw, row.matcher = every or row.every, owners, draw, matcher
        return checked

    def admit(self, rows: Sequence[CheckedRow]) -> None:
        """Check that the rows can share a tick now; see ``row_checks.admit``."""
        try:
            admit(rows, self.pool, self.backend.shape)
        except OutOfPages:
            gc.collect()  # blocks that only a reference cycle holds
            admit(rows, self.pool, self.backend.shape)

    def fits(self, rows: Sequence[CheckedRow]) -> bool:
        """Whether the rows can share a tick, with the pages that are free by now."""
        try:
            admit(rows, self.pool, self.backend.shape)
        except KvorumError:
            return False
        return True

    def ready(self, rows: Sequence[CheckedRow]) -> bool:
        """Whether all of the rows were computed ahead, so that a tick of them alone takes no time."""
        return all(row.count == 1 and row.own.ahead is not None for row in rows) and all(
            row.own.has_ahead(row.ids[0], row.view.shown) for row in rows
        )

    def run(self, rows: Sequence[CheckedRow], hidden: bool = False) -> TickResult:
        """Run a tick of admitted rows. On any error, an interrupt too, the blocks are as they were."""
        started = time.perf_counter()
        with unchanged_on_error([row.own for row in rows]):
            plain = hidden or any(row.unit is None or row.every or row.owners is not None for row in rows)
            guesses = None
            if self.speculation is not None and not plain:
                guesses = Guesses(self.speculation, rows)
            else:
                for row in rows:
                    row.own.append(row.ids)
            if guesses is None or guesses.idle:
                result = self._compute(rows, hidden)
            else:
                result = guesses.compute(self.backend, self.planner)
        size = self.pool.bytes_per_token
        cost = result.cost
        cost.ticks, cost.kv_written = 1, sum(row.count for row in rows) * size
        cost.kv_read = 0 if result.plan is None else result.plan.read * size
        for row in rows:
            cost.add(row.spent)
        cost.seconds = time.perf_counter() - started
        self.ledger.add(cost)
        return result

    def _compute(self, rows: Sequence[CheckedRow], hidden: bool) -> TickResult:
        """A tick of rows whose tokens stand in their blocks, none of them computed ahead."""
        with Asked(rows) as asked:
            tapped = None
            if any(row.owners is not None for row in rows):
                tapped = Tapped(rows, self.pool, len(self.backend.shape.layers))
            plan = self.planner.plan([row.view for row in rows], [row.count for row in rows], copied=tapped is None)
            starts = accumulate((row.count for row in rows), initial=0)
            embeds = [(start, row.embeds) for start, row in zip(starts, rows, strict=False) if row.embeds is not None]
            wanted, pieces = _wanted(rows)
            lasts = None if pieces is None else torch.tensor([piece.stop - 1 for piece in pieces])
            done = self.backend.forward(
                Work(
                    plan=plan,
                    ids=[token for row in rows for token in row.ids],
                    embeds=embeds,
                    wanted=wanted,
                    lasts=lasts,
                    hidden=hidden,
                    draws=asked.draws,
                    tap=None if tapped is None else tapped.tap,
                )
            )
            states = done.hidden if done.hidden is None or lasts is None else done.hidden[lasts]
            seen = None if tapped is None or done.shares is None else tapped.seen(done.shares)
            kept = KeptLogits(done.logits, lasts)
            output = Output(kept.handed_out, states, pieces, seen, done.hidden)
            for at, row in enumerate(rows):
                row.own.set_logits(partial(kept.line, at))
        return TickResult(output, plan, asked.told(done.picks), Ledger())


def _wanted(rows: Sequence[CheckedRow]) -> tuple[Tensor, tuple[slice, ...] | None]:
    """The tokens whose logits are wanted, and which of these are each row's (None: one each)."""
    ends = list(accumulate(row.count for row in rows))
    if not any(row.every for row in rows):
        return torch.from_numpy(np.array(ends) - 1), None
    places: list[int] = []
    pieces = []
    for row, end in zip(rows, ends, strict=True):
        start = len(places)
        places += range(end - row.count if row.every else end - 1, end)
        pieces.append(slice(start, len(places)))
    return torch.tensor(places), tuple(pieces)
