"""A tick some of whose rows were computed ahead, or are computed with tokens that are only supposed to come.

What was computed ahead is taken over: no more is done for such a row than to draw its token. The tokens supposed of
the others stand at the ends of their blocks for the time of the forward alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from kvorum.attention.plan import Plan, Planner
from kvorum.backends.backend import Backend, Work
from kvorum.engine.asked import Asked, Picked
from kvorum.engine.budget import Ledger
from kvorum.engine.row import CheckedRow, Output
from kvorum.engine.speculation.speculation import Speculation
from kvorum.engine.tick_result import TickResult
from kvorum.kv.ahead import Ahead
from kvorum.sampling.sampler import draw_all
from kvorum.sampling.sampling import Pick


class Guesses:
    """The rows of one tick, their tokens in their blocks. ``idle``: nothing was known of them or is supposed."""

    def __init__(self, speculation: Speculation, rows: Sequence[CheckedRow]) -> None:
        self._rows = rows
        self._known = speculation.known(rows)
        self._lines: list[Tensor | None] = []
        for row, there in zip(rows, self._known, strict=True):
            if there:
                self._lines.append(row.own.step())
            else:
                row.own.append(row.ids)
                self._lines.append(None)
        self._supposed = speculation.suppose(rows, self._known)
        self._loans: list[list[int]] = [[] for _ in rows]
        self.idle = not any(self._known) and not any(self._supposed)

    def compute(self, backend: Backend, planner: Planner) -> TickResult:
        """Compute what is not known and draw every row's token."""
        rows, lines = self._rows, self._lines
        computed = [at for at, there in enumerate(self._known) if not there]
        picks: list[Picked] = [None] * len(rows)
        plan: Plan | None = None
        with self._standing(), Asked(rows) as asked:
            ahead: Sequence[Tensor] = ()
            if computed:
                plan, ahead, drawn = self._forward(backend, planner, asked, computed)
                for at, pick in zip(computed, drawn, strict=False):
                    picks[at] = pick
            known = [at for at, there in enumerate(self._known) if there]
            if known:
                draws = asked.draws()
                found = [line for at in known if (line := lines[at]) is not None]
                logits = found[0][None] if len(found) == 1 else torch.stack(found)
                for at, pick in zip(known, draw_all(logits, [draws[at] for at in known]), strict=True):
                    picks[at] = pick
        self._remember(picks, dict(zip(computed, ahead, strict=False)))
        whole = [line for line in lines if line is not None]
        for row, line in zip(rows, whole, strict=True):
            row.own.set_logits(partial(_same, line))
        drafted = [len(ids) for ids in self._supposed]
        cost = Ledger(drafted=sum(drafted), accepted=sum(self._known))
        output = Output(lambda: torch.stack(whole))
        return TickResult(output, plan, asked.told(picks), cost, computed, drafted, self._known)

    def _forward(
        self, backend: Backend, planner: Planner, asked: Asked, computed: Sequence[int]
    ) -> tuple[Plan, list[Tensor], Sequence[Picked]]:
        """One forward of the rows that are not known: plan, logits behind what is supposed of each, drawn tokens."""
        rows = [self._rows[at] for at in computed]
        more = [len(self._supposed[at]) for at in computed]
        plan = planner.plan([row.view for row in rows], [row.count + n for row, n in zip(rows, more, strict=True)])
        ends = list(accumulate(plan.counts))
        wanted = [place for end, n in zip(ends, more, strict=True) for place in range(end - n - 1, end)]
        lasts = [end - n - 1 for end, n in zip(accumulate(n + 1 for n in more), more, strict=True)]
        starts = accumulate(plan.counts, initial=0)
        done = backend.forward(
            Work(
                plan=plan,
                ids=[token for at in computed for token in (*self._rows[at].ids, *self._supposed[at])],
                embeds=[(at, row.embeds) for at, row in zip(starts, rows, strict=False) if row.embeds is not None],
                wanted=torch.tensor(wanted),
                lasts=torch.tensor(lasts),
                draws=lambda: [asked.draws()[at] for at in computed],
            )
        )
        logits = done.logits()
        for at, last in zip(computed, lasts, strict=True):
            self._lines[at] = logits[last]
        return plan, [logits[last + 1 : last + 1 + n] for last, n in zip(lasts, more, strict=True)], done.picks

    @contextmanager
    def _standing(self) -> Iterator[None]:
        """Within it, what is supposed of each row stands at the end of its block, as far as there is room."""
        stands = []
        try:
            for at, ids in enumerate(self._supposed):
                if ids:
                    own = self._rows[at].own
                    count, self._loans[at] = own.suppose(ids)
                    stands.append((own, count, len(self._loans[at])))
                    del ids[count:]
            yield
        except BaseException:
            for loan in self._loans:
                self._rows[0].own.pool.give(loan)
            raise
        finally:
            for own, count, lent in stands:
                own.unsuppose(count, lent)

    def _remember(self, picks: Sequence[Picked], ahead: dict[int, Tensor]) -> None:
        """What was computed ahead stays with the blocks whose rows picked the first token of it."""
        for at, ids in enumerate(self._supposed):
            own, loan, pick = self._rows[at].own, self._loans[at], picks[at]
            if ids and isinstance(pick, Pick) and pick.id == ids[0]:
                own.set_ahead(Ahead(own.pool, ids, ahead[at], len(own), self._rows[at].view.shown, loan))
            else:
                own.pool.give(loan)


def _same(line: Tensor) -> Tensor:
    return line
