"""How many tokens to suppose: as many as are worth computing, by what came true of a text's suppositions so far.

All of it is counted in tokens, never in seconds, so that a run which is repeated supposes the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
from typing import NamedTuple

COST = 0.25
"""What a further token makes a tick of one longer by: measured 0.2 to 0.3 with packed weights on two AVX2 cores, less
where there are more of them."""
_MARGIN = 0.06
"""What a supposed token must gain at least, in ticks of one token: what is not counted here costs something, too."""
DEEPEST = 12
"""The most tokens that are supposed of one row."""
CROWD = 12
"""The most rows of a tick in which any are: with more of them, a token computed in vain costs what one saves."""

_LENGTHS = (2, 3, 4, 6, 8, 12, 16, 24)
"""Lengths of repeats that are told apart."""
_FIRST = (0.25, 0.35, 0.45, 0.6, 0.7, 0.8, 0.85, 0.9)
"""How often a repeat of such a length goes on, as long as a text has not told."""
_WEIGHT = 4.0
"""Tokens for which that counts."""
_FADING = 0.96
"""What a token counts less for every later one."""
CERTAIN = -1
"""In the place of a length: the grammar has nothing else there."""
DRAFTED = -2
"""In the place of a length: the smaller model says so."""
_AGREES = 0.75
"""How often that is right, as long as a text has not told."""


@dataclass(slots=True, eq=False)
class Record:
    """What became of the suppositions of one text, by the length of the repeat that they went on from."""

    tried: list[float] = field(default_factory=lambda: [0.0] * len(_LENGTHS))
    came: list[float] = field(default_factory=lambda: [0.0] * len(_LENGTHS))
    drafted: float = 0.0
    agreed: float = 0.0

    def learn(self, length: int, came: bool) -> None:
        """One token was supposed behind a repeat of that length, and it ``came`` or another one did."""
        if length == DRAFTED:
            self.drafted = self.drafted * _FADING + 1
            self.agreed = self.agreed * _FADING + came
        elif length != CERTAIN:
            at = _kind(length)
            self.tried[at] = self.tried[at] * _FADING + 1
            self.came[at] = self.came[at] * _FADING + came

    def chance(self, length: int) -> float:
        """How likely one comes that is supposed there."""
        if length == CERTAIN:
            return 0.99
        if length == DRAFTED:
            return (self.agreed + _AGREES * _WEIGHT) / (self.drafted + _WEIGHT)
        at = _kind(length)
        return (self.came[at] + _FIRST[at] * _WEIGHT) / (self.tried[at] + _WEIGHT)

    def chances(self, lengths: Sequence[int]) -> list[float]:
        """How likely the first, the first two, and so on, all come."""
        return list(accumulate(map(self.chance, lengths), mul))


def _kind(length: int) -> int:
    return max(0, bisect_right(_LENGTHS, length) - 1)


class Depth(NamedTuple):
    """How many tokens to suppose of each row, and what that gains, in ticks of one token."""

    tokens: int
    gain: float


def depth(chances: Sequence[Sequence[float]], ready: Sequence[int], rows: int, drafting: float = 0.0) -> Depth:
    """How many tokens to suppose of each of some rows that wait for each other.

    Args:
        chances: of every row that is computed now, how likely its first tokens come, all of the first one, two, ...
        ready: of every other one, how many of its tokens are computed ahead of this tick.
        rows: how many the tick has, others' included.
        drafting: what it takes to find a further token for all of them, in ticks of one token.
    """
    count = len(chances) + len(ready)
    if not chances or rows > CROWD:
        return Depth(0, 0.0)
    # a tick that nobody needs is saved whole; a row that is not computed in one which others need, its own part
    whole = (1 + COST * (rows - 1)) * count / rows - COST * count
    found = Depth(0, 0.0)
    for at in range(min(DEEPEST, *map(len, chances), *(ready or [DEEPEST]))):
        level = [row[at] for row in chances]
        everyone = 1.0
        for chance in level:
            everyone *= chance
        gain = everyone * whole + COST * (sum(level) - len(level)) - drafting
        if gain < _MARGIN * len(level):
            break
        found = Depth(at + 1, found.gain + gain)
    return found
