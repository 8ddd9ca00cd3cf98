"""Loops: noticing that a worker writes the same over and over, by the period of its last tokens.

A text loops with period p once its last tokens are at least ``REPEATS`` whole repeats of the same p tokens and at least
``LEAST`` tokens in all, and goes on looping until a token breaks that period. So neither a rule of dashes nor the row
of a table is a loop, and a sentence of thirty tokens is one when it has come four times. Each token costs one look at
the ``LONGEST`` tokens before it, however long the text is, and nothing else of the text is kept.

Not covered: texts that go on in circles in other words, or with a number that counts up; what a worker is fed. The
rollouts of trees end by a rule of their own, in characters, as it was published (``programs.tree.branch``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np

from kvorum.runs.annotations import Help

LONGEST = 256
"""The longest period that is noticed, in tokens."""
REPEATS = 4
"""How many whole repeats a loop has at least, the first occurrence counted."""
LEAST = 96
"""How many tokens a loop has at least, the first occurrence counted."""

OnLoop: TypeAlias = Annotated[
    Literal["go_on", "end"],
    Help("Whether a worker that writes the same over and over goes on, or ends its text there."),
]
"""A program's parameter for it."""

_PERIODS = np.arange(1, LONGEST + 1)
_NEEDED = np.maximum((REPEATS - 1) * _PERIODS, LEAST - _PERIODS)
"""By period, how many tokens in a row must be the same as the one a period before."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A worker has written the same ``period`` tokens over and over ``since`` that tick, when it first repeated one."""

    since: int
    period: int


class LoopDetector:
    """Follows the tokens of one text; ``loop`` says whether it is looping behind the last one, and since when.

    The smallest period counts where there are several.
    """

    def __init__(self) -> None:
        self.loop: Loop | None = None
        self._before = np.full(2 * LONGEST, -1, dtype=np.int64)
        """The tokens so far, the newest first, from ``_at`` on; -1 is none."""
        self._at = LONGEST
        self._same = np.zeros(LONGEST, dtype=np.int64)
        """By period, how many tokens up to now are the same as the one a period before, without a break."""
        self._ticks: deque[int] = deque(maxlen=int(_NEEDED.max()))

    def add(self, token: int, tick: int) -> None:
        """The next token, which was written in the tick of that number."""
        self._ticks.append(tick)
        self._same = (self._same + 1) * (self._before[self._at : self._at + LONGEST] == token)
        if not self._at:
            self._before[LONGEST:] = self._before[:LONGEST]
            self._at = LONGEST
        self._at -= 1
        self._before[self._at] = token
        if self.loop is not None and self._same[self.loop.period - 1]:
            return
        self.loop = None
        there = self._same >= _NEEDED
        if there.any():
            period = int(np.argmax(there)) + 1
            self.loop = Loop(self._ticks[-min(len(self._ticks), int(self._same[period - 1]))], period)
