"""A team's trace as numbers: every token that was written, and at which distance each of them sees which others.

Any arrangement of views is such a matrix: the ticks are in what is seen, the layout in the distances. So whoever
computes over it needs no workers, blocks or moves. A token that was copied to another block is still one token, seen at
another distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kvorum.errors import BadRequest

Numbers: TypeAlias = npt.NDArray[np.int64]
"""Whole numbers, of any shape."""

UNSEEN = -1
"""The distance of what a token does not see."""

_OPEN = np.iinfo(np.int64).min
"""The turn, while frames are made, of a query that sees none of a frame's keys yet."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Keys that keep their places to each other for everyone: one rotation of the queries serves them all.

    A query that is turned by ``turn[query]`` sees ``keys[i]``, turned by ``offset[i]``, at distance
    ``turn[query] - offset[i]``. A query that sees none of them has any turn.
    """

    keys: Numbers
    offset: Numbers
    turn: Numbers


@dataclass(frozen=True, eq=False)
class TeamTrace:
    """What was written in all ticks of a team, and what saw what.

    ``ids``: of all tokens, in the order in which they were written. ``distance``: ``[tokens, tokens]``, how far a token
    (the row) is from each one that it sees (the column), itself included at 0; ``UNSEEN`` where it does not.
    """

    ids: Sequence[int]
    distance: Numbers

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def frames(self) -> list[Frame]:
        """All keys in as few frames as the first fit finds.

        A prompt, the private parts behind it and a colleague's block are a frame each as long as nothing that grows
        stands between them.
        """
        turns: list[Numbers] = []
        members: list[list[tuple[int, int]]] = []
        for key, column in enumerate(self.distance.T):
            at, offset = _fit(column, turns)
            if at == len(turns):
                turns.append(np.full(len(self), _OPEN, dtype=np.int64))
                members.append([])
            members[at].append((key, offset))
            turns[at] = np.where(column >= 0, column + offset, turns[at])
        found = [np.array(keys, dtype=np.int64).T for keys in members]
        whole = [np.where(turn == _OPEN, 0, turn) for turn in turns]
        return [Frame(keys, offset, turn) for (keys, offset), turn in zip(found, whole, strict=True)]


def _fit(column: Numbers, turns: Sequence[Numbers]) -> tuple[int, int]:
    """The first frame in which a key has one place for all that see both, and that place; else a new one's."""
    for at, turn in enumerate(turns):
        both = (column >= 0) & (turn != _OPEN)
        if both.any() and len(places := np.unique(turn[both] - column[both])) == 1:
            return at, int(places[0])
    return len(turns), 0


def matrix(rows: Sequence[tuple[Numbers, Numbers, Numbers]], tokens: int) -> Numbers:
    """The distances of ``tokens`` tokens from pieces: queries ``[q]``, keys ``[k]`` and their distances ``[q, k]``.

    Raises:
        BadRequest: a token sees another one twice, at two distances.
    """
    distance = np.full((tokens, tokens), UNSEEN, dtype=np.int64)
    for queries, keys, far in rows:
        there = np.ix_(queries, keys)
        seen = far >= 0
        if (distance[there][seen] >= 0).any() or len(np.unique(keys)) < len(keys):
            raise BadRequest(
                "A token stands twice in one view, as itself and as its copy; train on views without that."
            )
        distance[there] = np.where(seen, far, distance[there])
    return distance
