"""How a token is asked for: a worker's sampling, one draw of it, and the pick that comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from kvorum.errors import BadRequest
from kvorum.jsontypes import JsonObject
from kvorum.sampling.grammar import Grammar

if TYPE_CHECKING:
    from torch import Tensor

SEQUENCE_BREAKERS = ("\n", ":", '"', "*")
"""The texts that no repeat reaches across for DRY, where a sampling says nothing else: llama.cpp's."""

Bits: TypeAlias = npt.NDArray[np.uint8]
"""A set of ids, one bit each: id i is in it where bit ``i % 8`` (the lowest first) of byte ``i // 8`` is set."""


def packed(mask: Tensor) -> Bits:
    """The ids for which ``mask``, bool ``[vocab]``, is true."""
    return np.packbits(mask.to("cpu").numpy(), bitorder="little")


def unpacked(bits: Bits, vocab: int) -> npt.NDArray[np.bool_]:
    """Which of ``vocab`` ids are in the set, bool ``[vocab]``; what lies behind its end is not."""
    return np.unpackbits(bits, count=vocab, bitorder="little").view(np.bool_)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a worker picks its tokens.

    ``temperature`` 0 is greedy. ``top_k`` keeps the k likeliest tokens (0: all); ``top_p`` the smallest set that holds
    that share of the probability; ``min_p`` those with at least that share of the likeliest one's probability. The
    filters work on the probabilities after temperature, in this order. ``banned`` ids are never picked. ``seed`` None
    takes the engine's. ``grammar`` is what the text is held to, from the first token that is picked under it to the
    end token.

    What follows changes logits before all of that, in this order (``sampling.penalties`` has the definitions).
    ``logit_bias`` is added to the logits of its ids. ``repetition_penalty`` above 1 makes less likely what the row has
    seen, its prompt included (as in transformers and vLLM): a positive logit is divided by it, another one multiplied.
    ``frequency_penalty`` is taken off for every time, and ``presence_penalty`` once, that a token stands in what the
    row itself has written (as in OpenAI's and vLLM's servers). ``penalty_last_n``: how many of the last tokens these
    three look back on (-1: all). DRY takes ``dry_multiplier * dry_base ** (n - dry_allowed_length)`` off a token that
    would go on with a repeat of ``n`` tokens, ``n`` at least ``dry_allowed_length``, in the last ``dry_penalty_last_n``
    tokens that the row has seen (-1: all); no repeat reaches across one of the texts ``dry_sequence_breakers``.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    banned: Sequence[int] = field(default=())
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = -1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: Sequence[str] = SEQUENCE_BREAKERS
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        if isinstance(self.banned, str | bytes) or not isinstance(self.banned, Iterable):
            raise BadRequest(f"Sampling: banned={self.banned!r} must be a list of token ids.")
        breakers = self.dry_sequence_breakers
        if isinstance(breakers, str | bytes) or not isinstance(breakers, Iterable):
            raise BadRequest(f"Sampling: dry_sequence_breakers={breakers!r} must be a list of texts.")
        object.__setattr__(self, "banned", tuple(self.banned))
        object.__setattr__(self, "dry_sequence_breakers", tuple(breakers))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        fine = {
            "temperature": _is(Real, self.temperature) and 0 <= self.temperature < math.inf,
            "top_p": _is(Real, self.top_p) and 0 <= self.top_p <= 1,
            "top_k": _is(Integral, self.top_k) and self.top_k >= 0,
            "min_p": _is(Real, self.min_p) and 0 <= self.min_p <= 1,
            "seed": self.seed is None or _is(Integral, self.seed),
            "banned": all(_is(Integral, token) and token >= 0 for token in self.banned),
            "repetition_penalty": _is(Real, self.repetition_penalty) and 0 < self.repetition_penalty < math.inf,
            "frequency_penalty": _is(Real, self.frequency_penalty) and math.isfinite(self.frequency_penalty),
            "presence_penalty": _is(Real, self.presence_penalty) and math.isfinite(self.presence_penalty),
            "penalty_last_n": _is(Integral, self.penalty_last_n) and self.penalty_last_n >= -1,
            "dry_multiplier": _is(Real, self.dry_multiplier) and 0 <= self.dry_multiplier < math.inf,
            "dry_base": _is(Real, self.dry_base) and 1 <= self.dry_base < math.inf,
            "dry_allowed_length": _is(Integral, self.dry_allowed_length) and self.dry_allowed_length >= 1,
            "dry_penalty_last_n": _is(Integral, self.dry_penalty_last_n) and self.dry_penalty_last_n >= -1,
            "dry_sequence_breakers": all(isinstance(text, str) and text for text in self.dry_sequence_breakers),
            "grammar": self.grammar is None or isinstance(self.grammar, Grammar),
        }
        for name, is_fine in fine.items():
            if not is_fine:
                raise BadRequest(f"Sampling: {name}={getattr(self, name)!r} is out of range or of a wrong kind.")

    def as_data(self) -> JsonObject:
        """The fields but the grammar as JSON holds them: lists, and ids that are keys as text."""
        given = asdict(replace(self, grammar=None))
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
        del found["grammar"]
        return found | {"logit_bias": {str(token): value for token, value in self.logit_bias.items()}}

    @property
    def looks_back(self) -> bool:
        """Whether a draw depends on what the row has seen and written, which it must be given then."""
        return bool(
            self.repetition_penalty != 1 or self.frequency_penalty or self.presence_penalty or self.dry_multiplier
        )


def _is(kind: type, value: object) -> bool:
    if type(value) is int:  # the usual case, which there are hundreds of in a list of bans
        return True
    return isinstance(value, kind) and not isinstance(value, bool)


def _biases(given: Mapping[int, float]) -> dict[int, float]:
    """Biases by token id; JSON has its keys as text. Raises BadRequest."""
    if not isinstance(given, Mapping):
        raise BadRequest(f"Sampling: logit_bias={given!r} must map token ids to numbers.")
    found: dict[int, float] = {}
    for key, value in given.items():
        if not str(key).isdecimal() or not _is(Real, value) or not math.isfinite(value):
            raise BadRequest(f"Sampling: logit_bias has {key!r}: {value!r}; it maps token ids to finite numbers.")
        found[int(key)] = value
    return found


Breakers = Mapping[int, Sequence[tuple[int, ...]]]
"""The ids of texts that no repeat reaches across: by a first id, what may follow it, the empty tuple where nothing
must."""


@dataclass(frozen=True, slots=True)
class History:
    """What a row's draw looks back on: the ids that it has seen, oldest first, those of its prompt and its own included
    (a latent step is -1); those that it has written itself; and where repeats break off."""

    seen: Sequence[int]
    written: Sequence[int]
    breakers: Breakers = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of a row's logits.

    The same ``seed``, ``stream`` and ``step`` draw the same point of the distribution, whatever else happens in the
    tick. ``telling`` False leaves the logprob out (it is NaN then), which takes a third of the time. ``allowed``: which
    tokens may be picked; None: all. Where the sampling has a grammar, there must be such a set. ``history``: needed
    where the sampling looks back.
    """

    sampling: Sampling
    seed: int
    stream: int
    step: int
    telling: bool = True
    allowed: Bits | None = None
    history: History | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen token and its natural-log probability under the model (temperature 1, no filter)."""

    id: int
    logprob: float
