"""The prompts of one owner: what a run may share with that owner's other runs and requests, and with nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from kvorum.engine.row import Cost, Row
from kvorum.runs.prefix_cache import Known, PrefixCache


@dataclass(frozen=True, slots=True)
class OwnPrompts:
    """The prompts of one owner, for a run of theirs."""

    cache: PrefixCache
    owner: str

    def known(self, rows: Sequence[Row], costs: Sequence[Cost]) -> AbstractAsyncContextManager[Known]:
        """As ``PrefixCache.known``."""
        return self.cache.known(rows, costs, self.owner)
