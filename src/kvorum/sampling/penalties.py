"""Logits that are changed before a token is drawn: a bias, and penalties against repetition.

Functions of a row's logits and of what the row looks back on; nothing is kept from draw to draw, so that a replay asks
the same. Only the logits of tokens that were seen or have a bias are read and written: the vocabulary is not gone
through. The order is that of llama.cpp and vLLM: bias, repetition, frequency and presence, DRY. All in float32.

- Repetition (transformers' RepetitionPenaltyLogitsProcessor): a logit above 0 is divided by the penalty, any other
  multiplied by it, once however often the token was seen.
- Frequency and presence (OpenAI's reference; llama.cpp, src/llama-sampler.cpp): ``count * frequency + presence`` off.
- DRY (github.com/oobabooga/text-generation-webui/pull/5677; llama.cpp, the same file): see ``repeats``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from kvorum.errors import BadRequest
from kvorum.sampling.sampling import Breakers, Draw, History, Sampling

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_MOST = np.float32(88.7228391)
"""The logarithm of the largest float32: no penalty of DRY grows beyond it."""


def changes(sampling: Sampling) -> bool:
    """Whether any logit is changed before a token is drawn."""
    return bool(sampling.logit_bias) or sampling.looks_back


def changed(logits: Floats, asked: Draw) -> tuple[Ids, Floats]:
    """The ids whose logits change, each once and in order, and their logits then.

    Raises:
        BadRequest: the sampling looks back and the draw has no history.
    """
    sampling, vocab = asked.sampling, len(logits)
    bias = {token: value for token, value in sampling.logit_bias.items() if token < vocab}
    if sampling.looks_back and asked.history is None:
        raise BadRequest("Penalties look back on what a row has seen, and this draw has no history.")
    history = asked.history or History((), ())
    seen = _known(history.seen, vocab)
    old = np.unique(_last(seen, sampling.penalty_last_n)) if sampling.repetition_penalty != 1 else seen[:0]
    counted = bool(sampling.frequency_penalty or sampling.presence_penalty)
    own = _last(_known(history.written if counted else (), vocab), sampling.penalty_last_n)
    written, counts = np.unique(own, return_counts=True)
    repeated = repeats(_last(seen, sampling.dry_penalty_last_n), sampling, history.breakers)
    ids = np.unique(np.concatenate([_ids(bias), old, written, _ids(repeated)]))
    values = logits[ids]  # a copy
    with np.errstate(over="ignore"):  # beyond float32, infinite is right
        values[ids.searchsorted(_ids(bias))] += np.array([*bias.values()], dtype=np.float32)
        at, penalty = ids.searchsorted(old), np.float32(sampling.repetition_penalty)
        values[at] = np.where(values[at] > 0, values[at] / penalty, values[at] * penalty)
        off = counts.astype(np.float32) * np.float32(sampling.frequency_penalty) + np.float32(sampling.presence_penalty)
        values[ids.searchsorted(written)] -= off
        values[ids.searchsorted(_ids(repeated))] -= _dry(_ids(repeated.values()), sampling)
    return ids, values


def repeats(seen: Ids, sampling: Sampling, breakers: Breakers) -> dict[int, int]:
    """The tokens that would go on with a repeat, and how many tokens of it there are already.

    The end of ``seen`` repeats what stands before position p if as many tokens before p are the same: the longest such
    run of at least ``dry_allowed_length`` counts for the token at p. It reaches back no further than behind the last
    breaker.
    """
    allowed = sampling.dry_allowed_length
    if not sampling.dry_multiplier or len(seen) <= allowed:
        return {}
    most = _behind_breaker(seen, breakers)
    if sampling.dry_base > 1.000001:
        most = min(most, allowed + _most_exponent(sampling))  # beyond it, all weigh the same
    found: dict[int, int] = {}
    ends = np.flatnonzero(seen[:-1] == seen[-1])
    for length in range(1, most + 1):
        if not len(ends):
            break
        if length >= allowed:
            found.update(dict.fromkeys(seen[ends + 1].tolist(), length))
        ends = ends[ends >= length]
        ends = ends[seen[ends - length] == seen[-1 - length]]
    return found


def _behind_breaker(seen: Ids, breakers: Breakers) -> int:
    """How many tokens stand behind the last breaker; the longest of those that begin at the same token counts."""
    end = len(seen)
    for at in np.flatnonzero(np.isin(seen, _ids(breakers)))[::-1].tolist() if breakers else ():
        tails = [tail for tail in breakers[int(seen[at])] if tuple(seen[at + 1 : at + 1 + len(tail)].tolist()) == tail]
        if tails:
            return int(end - 1 - at - max(map(len, tails)))
    return end


def _dry(lengths: Ids, sampling: Sampling) -> Floats:
    exponents = lengths - sampling.dry_allowed_length
    base = float(np.float32(sampling.dry_base))
    return (float(np.float32(sampling.dry_multiplier)) * base**exponents).astype(np.float32)


def _most_exponent(sampling: Sampling) -> int:
    return int(_MOST / np.float32(math.log(np.float32(sampling.dry_base))))


def _known(ids: Sequence[int], vocab: int) -> Ids:
    """Without latent steps."""
    found = np.array(ids, dtype=np.int64)
    return found[(found >= 0) & (found < vocab)]


def _ids(table: Iterable[int]) -> Ids:
    return np.fromiter(table, dtype=np.int64)


def _last(ids: Ids, count: int) -> Ids:
    """The last ``count`` of them; -1: all."""
    return ids if count < 0 else ids[max(0, len(ids) - count) :]
