"""What a tick came to: its output, the tokens that were drawn, what it cost, and what of it was computed ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from kvorum.attention.plan import Plan
from kvorum.engine.asked import Picked
from kvorum.engine.budget import Ledger
from kvorum.engine.row import CheckedRow, Output
from kvorum.sampling.sampler import settled
from kvorum.sampling.sampling import Pick


@dataclass(slots=True, eq=False)
class TickResult:
    """A tick that was run, or one group's part of it: output, drawn tokens per row, and cost.

    ``plan``: of the rows that were computed, which are ``computed`` by their places in the tick (None: all); None where
    all had been computed ahead. ``drafted``: how many tokens were supposed and computed with each row; () for none.
    """

    output: Output
    plan: Plan | None
    picks: Sequence[Picked]
    cost: Ledger
    computed: Sequence[int] | None = None
    drafted: Sequence[int] = ()
    known: Sequence[bool] = ()

    def pick(self, at: int) -> Pick:
        """The token drawn for row ``at``. Raises BadRequest: none was left. GrammarError: there is no mask."""
        return settled(self.picks[at])

    def part(self, start: int, rows: Sequence[CheckedRow], cost: Ledger) -> TickResult:
        """The result of a group's ``rows``, the tick's from ``start`` on, at that cost."""
        stop = start + len(rows)
        every, tapped = any(row.every for row in rows), rows[0].owners is not None
        cost.drafted, cost.accepted = sum(self.drafted[start:stop]), sum(self.known[start:stop])
        return replace(
            self,
            output=self.output.part(start, stop, every=every, attention=tapped),
            picks=self.picks[start:stop],
            cost=cost,
            drafted=self.drafted[start:stop],
            known=self.known[start:stop],
        )

    def read(self, rows: int) -> list[float]:
        """Stored tokens that each row is charged with reading: a segment that several rows see is read once."""
        read = [0.0] * rows
        places = range(rows) if self.computed is None else self.computed
        for segment in () if self.plan is None else self.plan.segments:
            share = segment.length / len(segment.rows)
            for at in segment.rows:
                read[places[at]] += share
        return read


class KeptLogits:
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
