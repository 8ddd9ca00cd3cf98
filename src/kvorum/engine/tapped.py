"""Whose words the rows of a tick attend to: from who wrote what to the groups of slots that a tap tells apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvorum.attention.tap import Tap
from kvorum.engine.row import CheckedRow
from kvorum.kv import PagePool, Span


class Tapped:
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
