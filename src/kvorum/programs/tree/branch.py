"""A branch of a tree of rollouts: what one worker wrote from a fork point on, and where its steps and calls end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from kvorum.engine.detokenizer import Detokenizer
from kvorum.harness.tools.tool import Tool
from kvorum.runs.worker import Worker

T = TypeVar("T")
LOOP = 32, 8  # characters, and how often they may come again before a text is going round in circles


@dataclass(slots=True)
class RolloutSettings:
    """Where steps and branches end. ``tokens`` and ``turns`` (tool calls) are per leaf, counted from the prompt."""

    tokens: int
    step: str = "\n\n"
    tools: list[Tool] = field(default_factory=list)
    turns: int = 3
    seconds: float = 20.0
    chars: int = 2000
    script: str | None = None


@dataclass(slots=True, eq=False)
class Branch:
    """Own tokens of a branch, from absolute position ``start`` of its path on (the prompt is position 0 on).

    ``sampled`` says which ids the model picked (others are tool results); ``logprobs`` are the model's at temperature
    1 (0.0 for tool results); ``entropies`` the normalised top-10 entropy where each was picked. ``steps`` and ``calls``
    are the positions behind finished steps and tool results. ``finish`` is "end", "length", "loop" or "spent".
    """

    index: int
    tree: int
    parent: Branch | None
    start: int
    worker: Worker
    words: Detokenizer
    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    text: str = ""  # of the whole path
    finish: str = ""
    auxiliary: bool = False
    answer: str | None = None  # of a program that worked behind it
    begun: int = 0  # where the open step begins in ``text``
    heard: int = 0  # where the last tool result ends in ``text``

    @property
    def end(self) -> int:
        """The length of its path."""
        return self.start + len(self.ids)

    def lineage(self) -> Iterator[Branch]:
        """This branch, the one that it was forked from, and so on up to one that starts behind the prompt."""
        branch: Branch | None = self
        while branch is not None:
            yield branch
            branch = branch.parent

    def owner(self, at: int) -> Branch | None:
        """The branch on this path that wrote token ``at - 1``, None for the prompt."""
        return next((branch for branch in self.lineage() if branch.start < at), None)

    def marks(self, name: str) -> list[int]:
        """The positions in "steps" or "calls" on the whole path."""
        found: list[int] = []
        end = self.end
        for branch in self.lineage():
            found += [at for at in getattr(branch, name) if at <= end]
            end = branch.start
        return found

    def path(self, read: Callable[[Branch], Sequence[T]]) -> list[T]:
        """What ``read`` has for each own token of a branch, from the prompt's end to here, ancestors' part included."""
        own = list(read(self))
        if self.parent is None:
            return own
        above = self.parent.path(read)
        return [*above[: len(above) - (self.parent.end - self.start)], *own]


def entropy(logits: Tensor) -> float:
    """Entropy of the ten likeliest tokens' probabilities over log of the vocabulary's size, as in ARPO."""
    chances = torch.log_softmax(logits.detach().cpu().double(), dim=-1).topk(min(10, len(logits))).values
    return float(-(chances.exp() * chances).sum() / math.log(len(logits)))


def looping(text: str) -> bool:
    """Whether ``text`` ends with the same 32 characters eight times over."""
    size, times = LOOP
    tail = text[-size:]
    return len(text) >= size * times and text.count(tail) >= times


def repeats(text: str) -> bool:
    """Whether any 32 characters stand in ``text`` eight times, overlapping or not: TreePO's early stop, per segment."""
    size, times = LOOP
    windows = Counter(text[at : at + size] for at in range(len(text) - size + 1))
    return any(count >= times for count in windows.values())
