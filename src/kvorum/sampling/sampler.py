"""Tokens for all rows of a tick in one native call; ``sampling`` says what is drawn and has the plain twin.

With ``kvorum-native`` a row is read by one thread, in a fixed order: its token and logprob depend, to the last bit, on
its own logits and what is asked of them, not on the other rows nor on the number of threads. The twin draws the same
point of the same distribution. Its sums are rounded otherwise (by less than 1e-5 of the whole), so that a point that
lies so near to the border of two tokens may fall on the other one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvorum.errors import BadRequest
from kvorum.extension import kernels
from kvorum.sampling.sampling import NONE_LEFT, Pick, Sampling, banned, pick


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of a row's logits: the arguments of ``sampling.pick``."""

    sampling: Sampling
    seed: int
    stream: int
    step: int
    telling: bool = True
    allowed: Tensor | None = None


def draw(logits: Tensor, asked: Draw) -> Pick:
    """A token for ``logits [vocab]``. Raises BadRequest: none is left."""
    (found,) = draw_all(logits[None], (asked,))
    if isinstance(found, BadRequest):
        raise found
    assert found is not None
    return found


def draw_all(logits: Tensor, asked: Sequence[Draw | None]) -> list[Pick | BadRequest | None]:
    """A token for each row of ``logits [rows, vocab]`` of which one is asked; an error where none is left."""
    wanted = [at for at, each in enumerate(asked) if each is not None]
    found: list[Pick | BadRequest | None] = [None] * len(asked)
    native = _native()
    fits = native is not None and logits.dtype == torch.float32 and logits.is_cpu and logits.stride(1) == 1
    drawn = _drawn if fits else _plain
    for at, each in zip(wanted, drawn(native, logits, [(at, asked[at]) for at in wanted]), strict=True):
        found[at] = each
    return found


def _plain(native: Any, logits: Tensor, asked: Sequence[tuple[int, Any]]) -> list[Pick | BadRequest]:
    found: list[Pick | BadRequest] = []
    for at, one in asked:
        given = {"seed": one.seed, "stream": one.stream, "step": one.step, "allowed": one.allowed}
        try:
            found.append(pick(logits[at], one.sampling, **given, telling=one.telling))
        except BadRequest as error:
            found.append(error)
    return found


def _drawn(native: Any, logits: Tensor, asked: Sequence[tuple[int, Any]]) -> list[Pick | BadRequest]:
    vocab, begin, apart = logits.shape[1], logits.data_ptr(), 4 * logits.stride(0)
    draws, held = native.Draws(vocab), []
    for at, one in asked:
        sampling: Sampling = one.sampling
        allowed = None if one.allowed is None else one.allowed.to("cpu", torch.bool).contiguous()
        bans = banned(sampling.banned, vocab) if sampling.banned else None
        held.append((allowed, bans))
        draws.add(
            begin + at * apart,
            0 if allowed is None else allowed.data_ptr(),
            *((0, 0) if bans is None else (bans.ctypes.data, len(bans))),
            *(sampling.temperature, sampling.top_p, sampling.min_p, min(sampling.top_k, vocab)),
            *(one.seed % 2**64, one.stream % 2**64, one.step % 2**64, one.telling),
        )
    found = draws.run(torch.get_num_threads())
    return [Pick(token, chance) if token >= 0 else BadRequest(NONE_LEFT) for token, chance in found]


@functools.cache
def _native() -> Any:
    """The native module, if its draws are the twin's on random logits."""
    native = kernels()
    if native is None:
        return None
    logits = 3 * torch.randn(16, 1000, generator=torch.Generator().manual_seed(0))
    kinds = (Sampling(), Sampling(1.0), Sampling(0.6, top_p=0.9, banned=(7, 8)), Sampling(1.5, top_k=40, min_p=0.02))
    asked = [(at, Draw(kinds[at % len(kinds)], 1, 2, at)) for at in range(len(logits))]
    ours, theirs = _plain(native, logits, asked), _drawn(native, logits, asked)
    same = all(
        isinstance(a, Pick) and isinstance(b, Pick) and a.id == b.id and abs(a.logprob - b.logprob) < 1e-4
        for a, b in zip(ours, theirs, strict=True)
    )
    return native if same else None
