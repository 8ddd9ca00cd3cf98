"""A tap on a tick's attention: what share of it each looked-at token gives to whose keys, layer by layer.

The shares are sums of softmax weights, means over the heads. They are read off the partial softmaxes that the attention
makes anyway and change nothing of it. What a sink takes is nobody's, so shares sum up to at most 1. The reference and
the native kernels have a tap; the Triton kernels have none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Tap:
    """What to look at in a tick, and what was seen.

    ``groups``: int32 ``[slots of the pool]``, whose key is there; ``count`` groups. ``tokens``: which tokens of the
    tick are looked at, ascending. ``lines``: int64 ``[tokens of the tick]``, each one's place in ``tokens`` or -1.
    ``shares``: float32 ``[layers, len(tokens), count]``, filled by the tick.
    """

    def __init__(self, groups: Tensor, count: int, tokens: Sequence[int], of: int, layers: int) -> None:
        self.groups, self.count = groups, count
        self.tokens = torch.tensor(tokens, device=groups.device)
        self.lines = torch.full((of,), -1, device=groups.device)
        self.lines[self.tokens] = torch.arange(len(tokens), device=groups.device)
        self.shares = torch.zeros(layers, len(tokens), count, device=groups.device)

    def to(self, device: torch.device) -> Tap:
        """This tap where the attention is computed."""
        if device == self.groups.device:
            return self
        return Tap(self.groups.to(device), self.count, self.tokens.tolist(), len(self.lines), len(self.shares))


class Look:
    """Collects one layer's partial softmaxes. For the reference; the native kernels do the same for themselves."""

    def __init__(self, tap: Tap, layer: int) -> None:
        self._tap, self._out = tap, tap.shares[layer]
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, picked: slice | Tensor, slots: slice | Tensor, skip: int, weights: Tensor, lse: Tensor) -> None:
        """``weights`` ``[heads, picked, keys]`` of a segment's keys but for the first ``skip``, and their ``lse``."""
        lines = self._tap.lines[picked]
        seen = (lines >= 0).nonzero().flatten()
        if len(seen):
            groups = self._tap.groups[slots][skip:].long()
            sums = weights.new_zeros(len(weights), len(seen), self._tap.count)
            self._parts.append((lines[seen], lse[:, seen], sums.index_add_(2, groups, weights[:, seen])))

    def finish(self, lse: Tensor) -> None:
        """``lse`` ``[heads, tokens]`` of the whole softmax, sinks included."""
        for lines, part, sums in self._parts:
            by = torch.exp(part - lse[:, self._tap.tokens[lines]])
            self._out[lines] += (sums * by[..., None]).mean(0).to(self._out.dtype)
