"""The executor: one tick from checked rows to output, on a backend.

Takes room in the rows' blocks, plans, has the backend compute, and says what it cost. Whatever breaks a tick off leaves
the blocks as they were.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate, repeat
from types import TracebackType
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from kvorum.attention.joined_copies import Copies
from kvorum.attention.plan import Plan, Planner
from kvorum.attention.tap import Tap
from kvorum.backends.backend import Backend, Work
from kvorum.engine.budget import Ledger
from kvorum.engine.owners import Owners
from kvorum.engine.row import CheckedRow, Cost, Output, Row
from kvorum.engine.row_checks import admit, check_rows
from kvorum.errors import BadRequest, GrammarError, KvorumError, OutOfPages
from kvorum.kv import PagePool, Span
from kvorum.kv.block import unchanged_on_error
from kvorum.sampling.matcher import Masks, Matcher, begin_masks
from kvorum.sampling.sampler import settled
from kvorum.sampling.sampling import Draw, Pick

Picked: TypeAlias = "Pick | BadRequest | GrammarError | None"
"""A row's drawn token, or why there is none; None: none was asked for."""


@dataclass(slots=True, eq=False)
class TickResult:
    """A tick that was run, or one group's part of it: output, the whole tick's plan, drawn tokens per row, and cost."""

    output: Output
    plan: Plan
    picks: Sequence[Picked]
    cost: Ledger

    def pick(self, at: int) -> Pick:
        """The token drawn for row ``at``. Raises BadRequest: none was left. GrammarError: there is no mask."""
        return settled(self.picks[at])


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

    def run(self, rows: Sequence[CheckedRow], hidden: bool = False) -> TickResult:
        """Run a tick of admitted rows. On any error, an interrupt too, the blocks are as they were."""
        started = time.perf_counter()
        with unchanged_on_error([row.own for row in rows]), _Asked(rows) as asked:
            for row in rows:
                row.own.append(row.ids)
            tapped = None
            if any(row.owners is not None for row in rows):
                tapped = _Tapped(rows, self.pool, len(self.backend.shape.layers))
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
            kept = _Kept(done.logits, lasts)
            output = Output(kept.handed_out, states, pieces, seen)
            for at, row in enumerate(rows):
                row.own.set_logits(partial(kept.line, at))
        size = self.pool.bytes_per_token
        cost = Ledger(ticks=1, kv_read=plan.read * size, kv_written=plan.tokens * size)
        for row in rows:
            cost.add(row.spent)
        cost.seconds = time.perf_counter() - started
        self.ledger.add(cost)
        return TickResult(output, plan, asked.told(done.picks), cost)


class _Asked:
    """What is drawn from the rows of a tick. Masks of those with a grammar are made from its beginning on."""

    def __init__(self, rows: Sequence[CheckedRow]) -> None:
        self._rows = rows
        self._held = [at for at, row in enumerate(rows) if row.matcher is not None and row.draw is not None]
        self._errors: dict[int, GrammarError] = {}

    def __enter__(self) -> _Asked:
        matchers = [row.matcher for row in self._rows if row.matcher is not None and row.draw is not None]
        self._masks: Masks = begin_masks(matchers) if matchers else tuple
        return self

    def __exit__(self, *error: BaseException | type[BaseException] | TracebackType | None) -> None:
        self._masks()  # nobody may touch the matchers before

    def draws(self) -> list[Draw | None]:
        """What to draw from each row, as soon as the masks are there."""
        draws = [row.draw for row in self._rows]
        for at, found in zip(self._held, self._masks(), strict=True):
            draw = draws[at]
            if isinstance(found, GrammarError):
                self._errors[at] = found
            elif draw is not None:
                draws[at] = replace(draw, allowed=found)
        return draws

    def told(self, picks: Sequence[Picked]) -> Sequence[Picked]:
        """The picks, and where a grammar could not be followed, why."""
        return [self._errors.get(at, pick) for at, pick in enumerate(picks)] if self._errors else picks


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


class _Tapped:
    """A tap on the last new token of each row that has ``owners``; made when the tick's tokens are in their blocks."""

    def __init__(self, rows: Sequence[CheckedRow], pool: PagePool, layers: int) -> None:
        groups = torch.zeros(pool.config.slots, dtype=torch.int32)
        first: dict[int, int] = {}
        done: set[tuple[int, int, int, int]] = set()
        tokens, end, count = [], 0, 1
        self._columns: list[list[int] | None] = []
        for row in rows:
            whose = row.owners
            end += row.count
            if whose is None:
                self._columns.append(None)
                continue
            tokens.append(end - 1)
            if id(whose) not in first:
                first[id(whose)] = count
                count += len(whose.names) - 1
            start = first[id(whose)]
            self._columns.append([0, *range(start, start + len(whose.names) - 1)])
            for item in row.view.items:
                if isinstance(item, Span) and (key := (id(whose), item.block.uid, item.lo, len(item))) not in done:
                    done.add(key)
                    for lo, hi, owner in whose.of(item.block, item.lo, item.lo + len(item)):
                        groups[item.block.table.slots(lo, hi)] = start + owner - 1
        self.tap = Tap(groups, count, tokens, end, layers)

    def seen(self, shares: Tensor) -> tuple[Tensor | None, ...]:
        """Of each row the ``shares`` of a tick ``[layers, names of its owners]``; None without owners."""
        lines = iter(shares.unbind(1))
        return tuple(None if columns is None else next(lines)[:, columns] for columns in self._columns)
