"""Whose words stand where: who wrote which tokens of a run's blocks, for a tap on the attention between workers."""

from __future__ import annotations

from kvorum.kv import Block


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
        marks, whose = self._from.setdefault(block.uid, []), self.names.index(name)
        while marks and marks[-1][0] >= (start or 0):
            marks.pop()
        marks.append((start or 0, whose))
        if start is not None:
            marks.append((len(block) if end is None else end, 0))

    def due(self, tick: int) -> Owners | None:
        """These owners in the ticks that are tapped, else None."""
        return self if self.every and tick % self.every == 0 else None

    def of(self, block: Block, lo: int, hi: int) -> list[tuple[int, int, int]]:
        """Tokens ``lo`` to ``hi`` in pieces of one owner each: (from, to, index in ``names``); nobody's left out."""
        marks = self._from.get(block.uid, [])
        ends = [*(start for start, _ in marks[1:]), hi]
        pieces = [(max(lo, start), min(hi, end), whose) for (start, whose), end in zip(marks, ends, strict=False)]
        return [piece for piece in pieces if piece[2] and piece[0] < piece[1]]
