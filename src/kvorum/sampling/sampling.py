"""How a token is asked for: a worker's sampling, one draw of it, and the pick that comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING

from kvorum.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor


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
        if isinstance(self.banned, str | bytes) or not isinstance(self.banned, Iterable):
            raise BadRequest(f"Sampling: banned={self.banned!r} must be a list of token ids.")
        object.__setattr__(self, "banned", tuple(self.banned))
        fine = {
            "temperature": _is(Real, self.temperature) and 0 <= self.temperature < math.inf,
            "top_p": _is(Real, self.top_p) and 0 <= self.top_p <= 1,
            "top_k": _is(Integral, self.top_k) and self.top_k >= 0,
            "min_p": _is(Real, self.min_p) and 0 <= self.min_p <= 1,
            "seed": self.seed is None or _is(Integral, self.seed),
            "banned": all(_is(Integral, token) and token >= 0 for token in self.banned),
        }
        for name, is_fine in fine.items():
            if not is_fine:
                raise BadRequest(f"Sampling: {name}={getattr(self, name)!r} is out of range or of a wrong kind.")


def _is(kind: type, value: object) -> bool:
    if type(value) is int:  # the usual case, which there are hundreds of in a list of bans
        return True
    return isinstance(value, kind) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of a row's logits.

    The same ``seed``, ``stream`` and ``step`` draw the same point of the distribution, whatever else happens in the
    tick. ``telling`` False leaves the logprob out (it is NaN then), which takes a third of the time. ``allowed``: bool
    ``[vocab]``, which tokens may be picked; None: all.
    """

    sampling: Sampling
    seed: int
    stream: int
    step: int
    telling: bool = True
    allowed: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen token and its natural-log probability under the model (temperature 1, no filter)."""

    id: int
    logprob: float
