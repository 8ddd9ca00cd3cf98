"""Tokens for all rows of a tick in one native call; ``reference`` has the plain twin.

With ``kvorum-native`` a row is read by one thread, in a fixed order: its token and logprob depend, to the last bit, on
its own logits and what is asked of them, not on the other rows nor on the number of threads. The twin draws the same
point of the same distribution. Its sums are rounded otherwise (by less than 1e-5 of the whole), so that a point that
lies so near to the border of two tokens may fall on the other one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kvorum.errors import BadRequest, GrammarError
from kvorum.native_extension import Kernels, kernels
from kvorum.sampling.penalties import Floats, Ids, changed, changes
from kvorum.sampling.reference import NO_MASK, NONE_LEFT, banned, pick
from kvorum.sampling.sampling import Draw, Pick, Sampling, unpacked

_LIKELIEST = Draw(Sampling(), 0, 0, 0)


def draw(logits: Tensor, asked: Draw) -> Pick:
    """A token for ``logits [vocab]``. Raises BadRequest: none is left."""
    return settled(draw_all(logits[None], (asked,))[0])


def settled(found: Pick | BadRequest | GrammarError | None) -> Pick:
    """What was found for a row of which one is asked. Raises BadRequest: none is left. GrammarError: no mask."""
    if isinstance(found, BadRequest | GrammarError):
        raise found
    assert found is not None
    return found


def draw_all(logits: Tensor, asked: Sequence[Draw | None]) -> list[Pick | BadRequest | None]:
    """A token for each row of ``logits [rows, vocab]`` of which one is asked; an error where none is left."""
    found: list[Pick | BadRequest | None] = [None] * len(asked)
    wanted = []
    for at, draw in enumerate(asked):
        if draw is None:
            continue
        if draw.sampling.grammar is not None and draw.allowed is None:
            found[at] = BadRequest(NO_MASK)
        else:
            wanted.append((at, draw))
    if not wanted:
        return found
    native = _native()
    if native is not None and logits.dtype == torch.float32 and logits.is_cpu and logits.stride(1) == 1:
        penalised = any(changes(each.sampling) for _, each in wanted)
        drawn = _penalised(native, logits, wanted) if penalised else _drawn(native, logits, wanted)
    else:
        drawn = _plain(logits, wanted)
    for (at, _), one in zip(wanted, drawn, strict=True):
        found[at] = one
    return found


def _plain(logits: Tensor, wanted: Sequence[tuple[int, Draw]]) -> list[Pick | BadRequest]:
    found: list[Pick | BadRequest] = []
    for at, asked in wanted:
        try:
            found.append(pick(logits[at], asked))
        except BadRequest as error:
            found.append(error)
    return found


def _penalised(native: Kernels, logits: Tensor, wanted: Sequence[tuple[int, Draw]]) -> Sequence[Pick | BadRequest]:
    """Draws of which some change logits first: in place, for the time of the native call, so that no row is copied.

    What they tell is the chance under the model as it is: the likeliest token's tells the row's sum.
    """
    if len(logits) > 1 and logits.stride(0) < logits.shape[1]:  # rows that share memory
        return _plain(logits, wanted)
    rows = logits.detach().numpy()
    refused: dict[int, BadRequest] = {}
    before: list[tuple[int, Ids, Floats]] = []
    try:
        for at, asked in wanted:
            if changes(asked.sampling):
                try:
                    ids, values = changed(rows[at], asked)
                except BadRequest as error:
                    refused[at] = error
                    continue
                before.append((at, ids, rows[at, ids]))
                rows[at, ids] = values
        drawn = dict(zip((at for at, _ in wanted), _drawn(native, logits, wanted), strict=True))
    finally:
        for at, ids, old in before:
            rows[at, ids] = old
    tell = {at for at, asked in wanted if asked.telling} & {at for at, _, _ in before}
    for at, top in zip(tell, _drawn(native, logits, [(at, _LIKELIEST) for at in tell]), strict=True):
        pick = drawn[at]
        if isinstance(pick, Pick):
            total = float(rows[at, top.id]) - top.logprob if isinstance(top, Pick) else math.nan
            drawn[at] = Pick(pick.id, float(rows[at, pick.id]) - total)
    return [*(drawn | refused).values()]


def _drawn(native: Kernels, logits: Tensor, wanted: Sequence[tuple[int, Draw]]) -> list[Pick | BadRequest]:
    vocab, begin, apart = logits.shape[1], logits.data_ptr(), 4 * logits.stride(0)
    draws, held = native.Draws(vocab), []
    for at, asked in wanted:
        sampling = asked.sampling
        allowed = None if asked.allowed is None else unpacked(asked.allowed, vocab)
        bans = banned(sampling.banned, vocab) if sampling.banned else None
        held.append((allowed, bans))
        draws.add(
            begin + at * apart,
            0 if allowed is None else allowed.ctypes.data,
            0 if bans is None else bans.ctypes.data,
            0 if bans is None else len(bans),
            sampling.temperature,
            sampling.top_p,
            sampling.min_p,
            min(sampling.top_k, vocab),
            asked.seed % 2**64,
            asked.stream % 2**64,
            asked.step % 2**64,
            asked.telling,
        )
    found = draws.run(torch.get_num_threads())
    return [Pick(token, chance) if token >= 0 else BadRequest(NONE_LEFT) for token, chance in found]


@functools.cache
def _native() -> Kernels | None:
    """The native module, if its draws are the twin's on random logits."""
    native = kernels()
    if native is None:
        return None
    logits = 3 * torch.randn(16, 1000, generator=torch.Generator().manual_seed(0))
    kinds = (Sampling(), Sampling(1.0), Sampling(0.6, top_p=0.9, banned=(7, 8)), Sampling(1.5, top_k=40, min_p=0.02))
    wanted = [(at, Draw(kinds[at % len(kinds)], 1, 2, at)) for at in range(len(logits))]
    same = all(
        isinstance(a, Pick) and isinstance(b, Pick) and a.id == b.id and abs(a.logprob - b.logprob) < 1e-4
        for a, b in zip(_plain(logits, wanted), _drawn(native, logits, wanted), strict=True)
    )
    return native if same else None
