"""From logits to a token. Every draw is a function of (seed, stream, step): no state, so a run can be replayed.

One row at a time in numpy: the plain twin of what ``sampler`` does natively for all rows of a tick.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kvorum.errors import BadRequest
from kvorum.sampling.penalties import Floats, changed, changes
from kvorum.sampling.sampling import Draw, Pick, Sampling, unpacked

NONE_LEFT = "No token can be picked: every logit is banned or not finite."
NO_MASK = "This row has a grammar, but nothing says which tokens it allows here; it is not decoded without."
_NEVER = np.float32("-inf")
_PART = 256
"""Weights that are summed in float32 before their sums are accumulated in float64."""


def pick(logits: Tensor, asked: Draw) -> Pick:
    """Choose a token from ``logits [vocab]``. Equal logits go to the lower id.

    One row at a time and on one thread: a row fits in a core's cache, a tick's rows do not.

    Raises:
        BadRequest: no token is left, a history is needed and lacks, or the row has a grammar and no mask.
    """
    if asked.sampling.grammar is not None and asked.allowed is None:
        raise BadRequest(NO_MASK)
    plain = _floats(logits)
    scores = plain
    sampling = asked.sampling
    if changes(sampling):
        ids, values = changed(plain, asked)
        scores = plain.copy()
        scores[ids] = values
    if asked.allowed is not None:
        scores = np.where(unpacked(asked.allowed, len(plain)), scores, _NEVER)
    if sampling.banned:
        scores = scores.copy() if scores is plain else scores
        scores[banned(sampling.banned, len(scores))] = _NEVER
    top = np.max(scores)
    if not np.isfinite(top):
        raise BadRequest(NONE_LEFT)
    if sampling.temperature == 0:
        chosen = int(np.argmax(scores))
    else:
        with np.errstate(over="ignore"):  # far below the likeliest at a small temperature: -inf is right
            chosen = _draw((scores - top) / _divisor(sampling.temperature), sampling, _uniform(asked))
    return Pick(chosen, float(plain[chosen]) - _total(plain) if asked.telling else math.nan)


def _floats(logits: Tensor) -> Floats:
    array: Floats = logits.detach().to("cpu", torch.float32).numpy()
    return array


@functools.lru_cache(maxsize=256)
def banned(ids: Sequence[int], vocab: int) -> npt.NDArray[np.int64]:
    """Those of ``ids``, a tuple, that the vocabulary has.

    Remembered: a team bans hundreds of tokens in every tick, and as a list they take longer than the draw.
    """
    return np.array([token for token in ids if token < vocab], dtype=np.int64)


def _divisor(temperature: float) -> np.float32:
    """Within float32, so that the likeliest token's 0 stays 0."""
    limits = np.finfo(np.float32)
    return np.float32(min(max(temperature, float(limits.tiny)), float(limits.max)))


def logprob(logits: Tensor, token: int) -> float:
    """Natural-log probability of ``token`` under ``logits [vocab]``: float32, temperature 1, no filter."""
    plain = _floats(logits)
    return float(plain[token]) - _total(plain)


def _total(plain: Floats) -> float:
    """The logarithm of the sum of all exponentials; NaN where a logit is infinite."""
    top = float(np.max(plain))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        shifted = plain - top
    return float(top) + math.log(float(np.exp(shifted, out=shifted).sum()))


def likeliest(logits: Tensor, count: int, total: float | None = None) -> tuple[Pick, ...]:
    """The ``count`` likeliest tokens under ``logits [vocab]`` with their logprobs, the likeliest first.

    ``total``: the logarithm of the sum of all exponentials, if it is known.
    """
    if not count:
        return ()
    total = _total(_floats(logits)) if total is None else total
    values, ids = torch.topk(logits.detach().to("cpu", torch.float32), min(count, len(logits)))
    return tuple(Pick(int(token), float(value) - total) for token, value in zip(ids, values, strict=True))


def _draw(scores: Floats, sampling: Sampling, point: float) -> int:
    """The token at ``point`` in [0, 1) of the distribution; the likeliest score is 0."""
    chances = np.zeros(-(-len(scores) // _PART) * _PART, dtype=np.float32)
    np.exp(scores, out=chances[: len(scores)])  # of the likeliest 1: only their sum's share counts
    if sampling.top_k == 0 and sampling.top_p == 1 and sampling.min_p == 0:
        parts = chances.reshape(-1, _PART)
        at, rest = _find(parts.sum(axis=1), point)
        return at * _PART + _find(parts[at], rest)[0]
    ids = _kept(scores, chances, sampling)
    return int(ids[_find(chances[ids], point)[0]])


def _find(weights: Floats, point: float) -> tuple[int, float]:
    """Which weight ``point`` in [0, 1) of their sum falls on, and at which point in [0, 1) of that weight."""
    cumulative = np.cumsum(weights, dtype=np.float64)
    place = point * cumulative[-1]
    at = int(cumulative.searchsorted(place, side="right"))
    if at == len(weights):  # rounding at the very end
        return int(np.flatnonzero(weights)[-1]), 1 - 2.0**-53
    before = cumulative[at - 1] if at else 0.0
    return at, min(float((place - before) / (cumulative[at] - before)), 1 - 2.0**-53)


def _kept(scores: Floats, chances: Floats, sampling: Sampling) -> npt.NDArray[np.int64]:
    """The ids that the filters leave: where tokens are ranked the likeliest first, of equal ones the lower first.

    Sorts no more of the vocabulary than it must.
    """
    if sampling.top_k == 0 and sampling.top_p == 1:
        return np.flatnonzero(chances >= np.float32(sampling.min_p))
    total = 0.0 if sampling.top_k else float(chances.sum())
    for reach in (8.0, 16.0, 32.0, np.inf):
        near = np.flatnonzero(scores >= -reach)
        if len(near) < min(sampling.top_k, len(scores)):
            continue
        ids = near[np.argsort(-scores[near], kind="stable")][: sampling.top_k or None]
        cumulative = np.cumsum(chances[ids], dtype=np.float64)
        aim = sampling.top_p * (total or float(cumulative[-1]))
        if cumulative[-1] >= aim:
            break
    ids = ids[: int(cumulative.searchsorted(aim)) + 1] if sampling.top_p < 1 else ids
    return ids[chances[ids] >= np.float32(sampling.min_p)]


def _uniform(asked: Draw) -> float:
    """A number in [0, 1) from a counter-based generator (Philox)."""
    key = np.array([asked.seed % 2**64, asked.stream % 2**64], dtype=np.uint64)
    counter = np.array([asked.step % 2**64, 0, 0, 0], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=counter)
    return float(np.random.Generator(bits).random())
