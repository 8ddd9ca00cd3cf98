"""What follows a prompt, scored whole: all answers in one trie, of which what several begin with is encoded once.

An answer's log-probability is the sum over its tokens. The first token is read from the logits behind the prompt, so
an answer of one token takes no forward pass. Where one answer is the beginning of another, all of them are scored with
what ends them (the end of the turn, or of the line), for the shorter one begins every text that the longer one does;
otherwise no text begins with two of them, and ends say nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kvorum.harness.decisions.answers import log

Floats = npt.NDArray[np.float64]


@dataclass(slots=True, eq=False)
class _Node:
    """A beginning of some answers. ``row``, ``at``: where the logits behind it are found; row -1: the prompt's."""

    row: int
    at: int
    below: dict[int, _Node] = field(default_factory=dict)
    ends: bool = False


@dataclass(slots=True, eq=False)
class Branch:
    """Tokens that are encoded in a row of their own, behind those of the branch ``above`` (-1: the prompt)."""

    above: int
    ids: list[int]


class OptionTrie:
    """The answers as ids, and what of them must be encoded: ``branches``, each behind branches before it.

    ``ends``: the ids that end a text.
    """

    def __init__(self, labels: Sequence[Sequence[int]], ends: Collection[int]) -> None:
        self._labels, self._ends = labels, sorted(ends)
        self.branches: list[Branch] = []
        root = _Node(-1, 0)
        for ids in labels:
            node = root
            for token in ids:
                node = node.below.setdefault(token, _Node(-1, 0))
            node.ends = True
        self.whole = bool(ends) and _has_beginnings(root)
        """Whether answers are scored with what ends them."""
        self._root = root
        self._lay_out(root)

    def _lay_out(self, root: _Node) -> None:
        """Put what must be encoded into branches: a token goes on the branch above it where nothing else does."""
        waiting = [(root, token, node) for token, node in reversed(root.below.items())]
        while waiting:
            above, token, node = waiting.pop()
            if not node.below and not (self.whole and node.ends):
                continue
            if above.row >= 0 and len(above.below) == 1:
                self.branches[above.row].ids.append(token)
            else:
                self.branches.append(Branch(above.row, [token]))
            node.row = above.row if above.row >= 0 and len(above.below) == 1 else len(self.branches) - 1
            node.at = len(self.branches[node.row].ids) - 1
            waiting += [(node, below, deeper) for below, deeper in reversed(node.below.items())]

    @property
    def tokens(self) -> int:
        """How many tokens the branches have."""
        return sum(len(branch.ids) for branch in self.branches)

    def score(self, prompt: Tensor, branches: Sequence[Tensor]) -> list[float]:
        """The log-probability of each answer, from the logits ``[vocab]`` behind the prompt and, of each branch,
        those behind its tokens ``[tokens, vocab]``."""
        rows: dict[tuple[int, int], Floats] = {}

        def behind(node: _Node) -> Floats:
            place = (node.row, node.at)
            if place not in rows:
                rows[place] = log_probabilities(prompt if node.row < 0 else branches[node.row][node.at])
            return rows[place]

        found = []
        for ids in self._labels:
            node, total = self._root, 0.0
            for token in ids:
                total += float(behind(node)[token])
                node = node.below[token]
            if self.whole:
                total += log(float(np.exp(behind(node)[self._ends]).sum()))
            found.append(total)
        return found


def log_probabilities(logits: Tensor) -> Floats:
    """Of every token ``[vocab]``, in float64, on one thread and in a fixed order: the same bits in any company."""
    values: Floats = logits.detach().cpu().double().numpy()
    top = float(np.max(values))
    return values - (top + float(np.log(np.exp(values - top).sum())))


def _has_beginnings(node: _Node) -> bool:
    """Whether an answer is the beginning of another."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.ends and node.below:
            return True
        waiting += node.below.values()
    return False
