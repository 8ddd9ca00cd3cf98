"""From logits to a token. Every draw is a function of (seed, stream, step): no state, so a run can be replayed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kvorum.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a worker picks its tokens.

    ``temperature`` 0 is greedy. ``top_k`` keeps the k likeliest tokens (0: all); ``top_p`` the smallest set that holds
    that share of the probability; ``min_p`` those with at least that share of the likeliest one's probability. The
    filters work on the probabilities after temperature, in this order. ``banned`` ids are never picked. ``seed`` None
    takes the engine's.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    banned: Sequence[int] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "banned", tuple(self.banned))
        wrong = [
            name
            for name, fine in (
                ("temperature", 0 <= self.temperature < float("inf")),
                ("top_p", 0 < self.top_p <= 1),
                ("top_k", self.top_k >= 0),
                ("min_p", 0 <= self.min_p <= 1),
                ("banned", all(token >= 0 for token in self.banned)),
            )
            if not fine
        ]
        if wrong:
            raise BadRequest(f"Sampling: {wrong[0]}={getattr(self, wrong[0])} is out of range.")


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen token and its natural-log probability under the model (temperature 1, no filter)."""

    id: int
    logprob: float


def pick(
    logits: Tensor, sampling: Sampling, *, seed: int, stream: int, step: int, allowed: Tensor | None = None
) -> Pick:
    """Choose a token from ``logits [vocab]``, among those where ``allowed`` (bool ``[vocab]``, None: all) is true.

    The same (seed, stream, step) draws the same point of the distribution, whatever else happens in the tick.
    Equal logits go to the lower id.
    """
    plain = logits.detach().to("cpu", torch.float32)
    scores = plain if allowed is None else plain.masked_fill(~allowed.to("cpu"), float("-inf"))
    if sampling.banned:
        scores = scores.index_fill(0, _banned(tuple(sampling.banned), len(scores)), float("-inf"))
    if not bool(torch.isfinite(scores.max())):
        raise BadRequest("No token can be picked: every logit is banned or not finite.")
    chosen = int(scores.argmax()) if sampling.temperature == 0 else _draw(scores, sampling, seed, stream, step)
    return Pick(chosen, logprob(plain, chosen))


@functools.lru_cache(maxsize=256)
def _banned(ids: tuple[int, ...], vocab: int) -> Tensor:
    """As int64. A team bans hundreds of tokens in every tick; a list of them as an index takes longer than the draw."""
    return torch.tensor([token for token in ids if token < vocab], dtype=torch.long)


def logprob(logits: Tensor, token: int) -> float:
    """Natural-log probability of ``token`` under ``logits [vocab]``: float32, temperature 1, no filter."""
    plain = logits.detach().to("cpu", torch.float32)
    return float(plain[token] - torch.logsumexp(plain, dim=0))


def likeliest(logits: Tensor, count: int, total: Tensor | None = None) -> tuple[Pick, ...]:
    """The ``count`` likeliest tokens under ``logits [vocab]`` with their logprobs, the likeliest first.

    ``total``: the logarithm of the sum of all exponentials, if it is known.
    """
    if not count:
        return ()
    plain = logits.detach().to("cpu", torch.float32)
    total = torch.logsumexp(plain, dim=0) if total is None else total
    values, ids = torch.topk(plain, min(count, len(plain)))
    return tuple(Pick(int(token), float(value - total)) for token, value in zip(ids, values, strict=True))


def _draw(scores: Tensor, sampling: Sampling, seed: int, stream: int, step: int) -> int:
    ids: Tensor | None = None
    # the likeliest at 0, in float64: no temperature, however small, overflows
    scores = (scores.double() - float(scores.max())) / sampling.temperature
    if sampling.top_k:
        scores, ids = torch.topk(scores, min(sampling.top_k, len(scores)))
    if sampling.top_p < 1:
        scores, ids = _nucleus(scores, ids, torch.logsumexp(scores, dim=0), sampling.top_p)
    chances = torch.exp(scores)  # of the likeliest 1: only their sum's share counts
    if sampling.min_p:
        chances = torch.where(chances >= sampling.min_p * chances.max(), chances, 0.0)
    cumulative = torch.cumsum(chances, dim=0)
    point = _uniform(seed, stream, step) * float(cumulative[-1])
    at = int(torch.searchsorted(cumulative, torch.tensor(point, dtype=torch.float64), right=True))
    if at == len(chances) or not chances[at]:  # rounding at the very end
        at = int(torch.nonzero(chances)[-1])
    return at if ids is None else int(ids[at])


def _nucleus(scores: Tensor, ids: Tensor | None, total: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The fewest likeliest tokens whose probability reaches ``share``, of equal ones the lower ids first.

    The likeliest score is 0. Sorts no more of the vocabulary than it must.
    """
    reach = 8.0
    while True:
        near = torch.nonzero(scores >= -reach).flatten()
        top, order = torch.sort(scores[near], descending=True, stable=True)
        cumulative = torch.cumsum(torch.exp(top - total), dim=0)
        if float(cumulative[-1]) >= share or reach == float("inf"):
            keep = min(int(torch.searchsorted(cumulative, share)) + 1, len(top))
            kept = near[order[:keep]]
            return top[:keep], kept if ids is None else ids[kept]
        reach = 2 * reach if reach < 32 else float("inf")


def _uniform(seed: int, stream: int, step: int) -> float:
    """A number in [0, 1) from a counter-based generator (Philox)."""
    key = np.array([seed % 2**64, stream % 2**64], dtype=np.uint64)
    counter = np.array([step % 2**64, 0, 0, 0], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=counter)
    return float(np.random.Generator(bits).random())
