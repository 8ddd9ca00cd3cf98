"""What a run may still spend. It never spends more than its budget: what does not fit is not begun.

A run and those inside it spend from one purse. Each of them may set something aside to close with, a question for the
answer: its ordinary work ends when no more than what is set aside is left, and the closing has that for itself. So a
tick is done only if all of it fits; seconds alone are known behind a tick and may be passed by one.

Runs that repeat a trace of before version 3 spend as they did then: nothing was set aside, a tick was begun as long as
a limit was not reached, and closings went beyond the budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from kvorum.engine.budget import Budget, Ledger

SHARE = 3
"""At most one in so many of what is left is set aside."""


class Spent(Exception):
    """The budget is used up, or what is left of it does not do for what was asked; raised by ticks of a ``Run``."""


@dataclass(slots=True, eq=False)
class Purse:
    """What a run and those inside it spend from. ``budget`` may be replaced while they go on.

    ``ledger``: what was spent. ``pending``: what ticks cost that are under way. ``allowances``: of the runs that are
    not over. ``strict``: the rules hold from version 3 of the trace on. ``asked``: somebody wants the answer now.
    """

    budget: Budget
    strict: bool = True
    asked: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    pending: list[Ledger] = field(default_factory=list)
    allowances: list[Allowance] = field(default_factory=list)

    def left(self, name: str, limit: float, closer: Allowance | None = None) -> float:
        """How much of a limit may be spent: by ``closer`` also what it has set aside itself."""
        return limit - self.used(name, limit, closer)

    def used(self, name: str, limit: float, closer: Allowance | None = None) -> float:
        """What is spent, under way or set aside."""
        spent = float(getattr(self.ledger, name))
        if self.strict:
            spent += sum(float(getattr(cost, name)) for cost in self.pending)
            spent += sum(one.kept(name, limit) for one in self.allowances if one is not closer)
        return spent


class Allowance:
    """What one run may spend, and what it has set aside of it.

    ``reached``: the limit that was passed by what was asked last; ``ended``: the one that ended its work; ``closing``:
    whether the work is over and what it set aside is its own. ``free``: in traces of before version 3, set-up did not
    look at the budget.
    """

    def __init__(self, purse: Purse) -> None:
        self.closing = self.free = False
        self.reached: str | None = None
        self.ended: str | None = None
        self._purse = purse
        self._set_aside = Ledger()
        self._closed = Ledger()
        self._before: dict[str, float] = {}
        purse.allowances.append(self)

    def kept(self, name: str, limit: float) -> float:
        """What it keeps back of a limit: what its closing costs and has not yet spent, or its share if that is less."""
        share = max(0.0, limit - self._before.get(name, 0.0)) / SHARE
        kept = max(0.0, min(self._entry(self._set_aside, name), share) - self._entry(self._closed, name))
        return kept if name == "seconds" else kept // 1

    def _entry(self, cost: Ledger, name: str) -> float:
        """What ``cost`` holds of a limit; of seconds what its ticks take if they are like those before."""
        if name == "seconds":
            ledger = self._purse.ledger
            return cost.ticks * ledger.seconds / max(1, ledger.ticks)
        return float(getattr(cost, name))

    @property
    def spent(self) -> str | None:
        """The limit of which nothing is left, or that was passed by what was asked last; None: work can go on.

        "asked" where somebody wants the answer now.
        """
        purse = self._purse
        if self.closing or self.free:
            return self.reached if purse.strict else None
        over = next((name for name, limit in purse.budget.limits().items() if purse.left(name, limit) <= 0), None)
        return "asked" if purse.asked else over or self.reached

    def work(self, closing: Ledger) -> None:
        """Work begins, or goes on; what is set aside for its closing stays what it was."""
        if self.closing:
            self.reached = self.ended  # what was over stays so
        else:
            self._before = {name: self._purse.used(name, math.inf) for name in Budget.__slots__}
            self._set_aside = closing
        self.closing = False

    def close(self) -> None:
        """The work is over: what was set aside may be spent."""
        if not self.closing:
            self.ended, self.reached = self.spent, None
            self.closing = True

    def release(self) -> None:
        """The run is over: what it set aside and has not spent is free for others."""
        self._purse.allowances.remove(self)

    @contextmanager
    def spending(self, cost: Ledger) -> Iterator[None]:
        """Around what costs so much, which the caller then puts on the ledger. Raises Spent if it does not fit."""
        purse = self._purse
        closer = self if self.closing else None
        over = None
        for name, limit in purse.budget.limits().items() if purse.strict else ():
            left = purse.left(name, limit, closer)
            if (left <= 0) if name == "seconds" else (getattr(cost, name) > left):
                over = over or name
        self.reached = over if self.closing else self.reached or over
        if self.spent is not None:
            raise Spent
        purse.pending.append(cost)
        try:
            yield
        finally:
            purse.pending.remove(cost)
        if self.closing:
            self._closed.add(cost)


class Spender:
    """The part of a run that spends: ``allowance`` says how much."""

    def __init__(self, purse: Purse) -> None:
        self.allowance = Allowance(purse)
        self.undisturbed = False
        """Whether nobody's pause holds the run now."""
        self._purse = purse

    @property
    def spent(self) -> str | None:
        """The limit of which no more is left than is set aside, or None; "asked" where the answer is wanted now."""
        return self.allowance.spent

    @contextmanager
    def work(self, closing: Ledger | None = None) -> Iterator[None]:
        """Set aside what a ``closing`` costs, and end the block where no more than that is left of the budget.

        Behind it the program closes its work with what is set aside: at most a third of what was left. That the block
        is ended is no error. Where it is entered again, what was set aside is what it was.
        """
        self.allowance.work(closing or Ledger())
        with suppress(Spent):
            yield
        self.allowance.close()

    @contextmanager
    def setting_up(self) -> Iterator[None]:
        """Within it nobody's pause holds the run: a program's set-up is done whole, if the budget has it."""
        before = self.undisturbed, self.allowance.free
        self.undisturbed, self.allowance.free = True, not self._purse.strict
        try:
            yield
        finally:
            self.undisturbed, self.allowance.free = before
