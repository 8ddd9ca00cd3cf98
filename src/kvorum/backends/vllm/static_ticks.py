"""The driver's side of ticks on static buffers: it says in which bucket a tick runs, and when that one is captured.

All ranks must do the same in the same tick, for they wait for each other in collectives; so none of them decides
anything. Their tables are cut by the same rules, those that suit all of them, and the driver makes the same tables to
know the bucket. The tick of a capture runs eagerly on the new buffers, and the graph is captured behind it. Only when
every rank says that it has one does the driver order a replay; where one has none, no rank uses any from then on. A
rank whose captures hold no more says so too, and all begin anew.

Covers the decisions. Buffers and graphs are in ``rank_graphs``. Not measured on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from kvorum.attention.triton.tables import Cuts, StaticKey
from kvorum.backends.backend import Work
from kvorum.models.runners.buckets import MOST_ROWS, Buckets
from kvorum.models.runners.graphs import AFTER, KEEP


class Static(NamedTuple):
    """How a tick runs on every rank: in the buffers of bucket ``number``. ``capture``: they are made in this tick."""

    number: int
    capture: bool


class StaticTicks:
    """The buckets of one engine. ``cuts``: the rules of its ranks' tables."""

    def __init__(self, cuts: Cuts) -> None:
        self._cuts = cuts
        self._buckets: Buckets[StaticKey, int] = Buckets(AFTER, KEEP)
        self._gone: list[int] = []
        self._made = 0
        self._capturing: StaticKey | None = None
        self.replayed = 0
        """Ticks that were replays."""
        self.refused: str | None = None
        """Why a rank cannot capture the model, once that was tried. Every tick is eager from then on."""

    @property
    def captured(self) -> int:
        """Buckets that all ranks hold."""
        return len(self._buckets.keys)

    def turn(self, work: Work) -> Static | None:
        """How a tick runs; None: eagerly, as one of several tokens in a row, of embeddings, or with a tap."""
        if self._capturing is not None:  # the tick failed, and nobody has said whether the capture did
            self._gone.append(self._made)
            self._capturing = None
        plan = work.plan
        if self.refused is not None or work.embeds or work.tap is not None:
            return None
        if plan.tokens > MOST_ROWS or plan.tokens != len(plan.counts) or (key := self._cuts.key(plan)) is None:
            return None
        number = self._buckets.use(key)
        if number is not None:
            self.replayed += 1
            return Static(number, False)
        if not self._buckets.due(key):
            return None
        self._capturing, self._made = key, self._made + 1
        return Static(self._made, True)

    def drop(self) -> list[int]:
        """The numbers of buckets that the ranks need no longer hold; each is told once."""
        gone, self._gone = self._gone, []
        return gone

    def told(self, refusals: Sequence[str], moved: bool = False) -> None:
        """What the ranks have said of the tick that ``turn`` was asked for. ``moved``: nothing that one of them has
        captured holds any more; it may be captured anew."""
        key, self._capturing = self._capturing, None
        refused = next((words for words in refusals if words), None) if key is not None else None
        if key is not None:
            self._gone += self._buckets.keep(key, self._made)
        if moved or refused is not None:
            self._gone += self._buckets.clear()
        if refused is not None:
            self.refused = refused
            warnings.warn(f"The model's decoding cannot be captured and runs eagerly: {refused}", stacklevel=2)
