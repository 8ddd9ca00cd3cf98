"""Whose words stand where: who wrote which tokens of a run's blocks, for a tap on the attention between workers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvorum.attention.tap import Tap
from kvorum.engine.admission import CheckedRow
from kvorum.kv import Block, PagePool, Span


class Owners:
    """Who wrote which tokens. ``names``: "" for what nobody wrote, such as prompts and headings, then the writers.

    A run's owners remember nothing until they are given an ``every``: in every so many-th tick they are asked.
    """

    def __init__(self, every: int = 0) -> None:
        self.names: list[str] = [""]
        self.every = every
        self._from: dict[int, list[tuple[int, int]]] = {}  # block -> (token, whose from there on)

    def credit(self, block: Block, name: str, start: int | None = None, end: int | None = None) -> None:
        """Tokens ``start`` to ``end`` (None: the present end) of ``block`` are ``name``'s; without a start all of them,
        later ones too. Said from the beginning of a block to its end."""
        if not self.every:
            return
        if name not in self.names:
            self.names.append(name)
        told, whose = self._from.setdefault(block.uid, []), self.names.index(name)
        while told and told[-1][0] >= (start or 0):
            told.pop()
        told.append((start or 0, whose))
        if start is not None:
            told.append((len(block) if end is None else end, 0))

    def due(self, tick: int) -> Owners | None:
        """These owners in the ticks that are tapped, else None."""
        return self if self.every and tick % self.every == 0 else None

    def of(self, block: Block, lo: int, hi: int) -> list[tuple[int, int, int]]:
        """Tokens ``lo`` to ``hi`` in pieces of one owner each: (from, to, index in ``names``); nobody's left out."""
        told = self._from.get(block.uid, [])
        ends = [*(start for start, _ in told[1:]), hi]
        pieces = [(max(lo, start), min(hi, end), whose) for (start, whose), end in zip(told, ends, strict=False)]
        return [piece for piece in pieces if piece[2] and piece[0] < piece[1]]


class Tapped:
    """A tap on the last new token of each row that has ``owners``; made when the tick's tokens are in their blocks."""

    def __init__(
        self, rows: Sequence[CheckedRow], owners: Sequence[Owners | None], pool: PagePool, layers: int
    ) -> None:
        groups = torch.zeros(pool.config.slots, dtype=torch.int32)
        first: dict[int, int] = {}
        done: set[tuple[int, int, int, int]] = set()
        tokens, end, count = [], 0, 1
        self._columns: list[list[int] | None] = []
        for row, whose in zip(rows, owners, strict=True):
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
