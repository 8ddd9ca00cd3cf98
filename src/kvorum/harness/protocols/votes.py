"""Votes: who has one, what may be voted for, and what comes of it when some are late, absent, double or equal.

A rule counts against *all* who have a vote, so that who stays away helps nobody; only "most" compares those that were
cast. What came in does not depend on the order in which voters were heard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from kvorum.errors import BadRequest
from kvorum.wording import check_known

SHARES = {"majority": Fraction(1, 2), "two thirds": Fraction(2, 3), "all": Fraction(1)}
"""Rules by the share of all voters that a choice needs: of "majority" more than it, of the others no less."""
RULES = (*SHARES, "most")
Cast: TypeAlias = Literal["counted", "double", "late", "stranger", "no choice"]
"""What became of a vote. "double": the voter has voted, and the first vote stands. "stranger": has no vote."""


@dataclass(frozen=True, slots=True)
class Count:
    """What came of a vote. ``outcome``: "won"; "tied" (the rule is "most", and several choices have as many);
    "short" (no choice has what the rule needs); "absent" (fewer voted than must). ``winner``: "" without one.
    ``votes``: for each choice; ``absent``: who did not vote, in order."""

    outcome: Literal["won", "tied", "short", "absent"]
    winner: str
    votes: Mapping[str, int]
    absent: Sequence[str]


def needed(rule: str, voters: int) -> int:
    """How many votes a choice needs under ``rule``; of "most" one. Raises UnknownName: there is no such rule."""
    check_known("rule", rule, RULES, owner="A vote")
    if rule == "most":
        return 1
    share = SHARES[rule] * voters
    return int(share) + 1 if rule == "majority" else -int(-share // 1)


class Ballot:
    """One vote among ``voters`` over ``choices``.

    Args:
        rule: which choice wins (``RULES``). least: how many must have voted, or the outcome is "absent". closes: the
            last moment, in whatever the caller counts, at which a vote is counted; None: no moment is too late.

    Raises:
        BadRequest: no voters, no choices, or one of them twice; more must vote than there are. UnknownName: the rule.
    """

    def __init__(
        self,
        voters: Sequence[str],
        choices: Sequence[str],
        rule: str = "majority",
        *,
        least: int = 0,
        closes: int | None = None,
    ) -> None:
        for what, names in (("voters", voters), ("choices", choices)):
            if not names or len(set(names)) < len(names):
                raise BadRequest(f"A vote needs {what}, each once; these are: {', '.join(names) or 'none'}.")
        if not 0 <= least <= len(voters):
            raise BadRequest(f"least={least} votes cannot be had of {len(voters)} voters.")
        self.voters, self.choices, self.rule = tuple(voters), tuple(choices), rule
        self.least, self.closes = least, closes
        self.needed = needed(rule, len(voters))
        self.cast_by: dict[str, str] = {}
        """The votes that count, by voter."""

    def cast(self, voter: str, choice: str, at: int = 0) -> Cast:
        """Take a vote in, at a moment; what became of it."""
        if voter not in self.voters:
            return "stranger"
        if choice not in self.choices:
            return "no choice"
        if self.closes is not None and at > self.closes:
            return "late"
        if voter in self.cast_by:
            return "double"
        self.cast_by[voter] = choice
        return "counted"

    def count(self) -> Count:
        """What came of it, if nobody votes any more."""
        votes = Counter(self.cast_by.values())
        shown = {choice: votes[choice] for choice in self.choices}
        absent = [voter for voter in self.voters if voter not in self.cast_by]
        most = max(shown.values())
        first = [choice for choice in self.choices if shown[choice] == most]
        if len(self.cast_by) < max(self.least, 1):
            return Count("absent", "", shown, absent)
        if most < self.needed:
            return Count("short", "", shown, absent)
        return Count("tied", "", shown, absent) if len(first) > 1 else Count("won", first[0], shown, absent)

    @property
    def settled(self) -> bool:
        """Whether those who have not voted yet cannot change the outcome."""
        now = self.count()
        waiting = len(now.absent)
        if not waiting:
            return True
        if now.outcome == "absent":
            return False
        if self.rule != "most":
            best = max(now.votes.values())
            return best >= self.needed or best + waiting < self.needed
        others = [number for choice, number in now.votes.items() if choice != now.winner]
        return now.outcome == "won" and now.votes[now.winner] > max(others, default=0) + waiting
