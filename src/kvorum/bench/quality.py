"""The loss of the fast mode: perplexity and likeliest tokens on a fixed text, against float32.

The text is read once in rows of a prefill and once in rows as short as a tick of a large team, which may take other
kernels.
"""

from __future__ import annotations

import math

from kvorum.bench.result import Quality
from kvorum.bench.sides.messages import Score

TOKENS = 2048
AT_ONCE = (256, 16)


def loss(exact: Score, fast: Score, at_once: int) -> Quality:
    """What two scores of the same text say of each other."""
    same = [a == b for a, b in zip(exact.likeliest, fast.likeliest, strict=True)]
    return Quality(
        tokens=len(same),
        at_once=at_once,
        weights=fast.weights,
        exact=_perplexity(exact.nll),
        fast=_perplexity(fast.nll),
        agreement=sum(same) / len(same),
    )


def _perplexity(nll: list[float]) -> float:
    return math.exp(math.fsum(nll) / len(nll))
