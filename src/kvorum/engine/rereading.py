"""Reading again: rows that encode anew what stands in a cache already, behind what stands before it now.

Covers which rows those are and of what spans the result consists. A token that is read again has the keys and values of
a fresh forward in the new context; one that is not keeps what it read where it was written. Rows of one tick see each
other's new keys layer by layer, so all of them together are one forward pass over the chosen tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from kvorum.backends.backend import Backend
from kvorum.engine.row import Row
from kvorum.errors import BadRequest, SpanOutOfRange, ViewError
from kvorum.kv import LATENT, Block, Gap, Span, View


def patch_rows(
    block: Block, before: View, chosen: Iterable[int], fresh: Callable[[str], Block]
) -> tuple[list[Row], list[Span]]:
    """The rows that read ``chosen`` tokens of ``block`` again behind ``before``, and the spans of the patched block.

    Raises:
        SpanOutOfRange: a token that the block has not. BadRequest: a latent step, which has no id to be read again.
    """
    places, length = sorted(set(chosen)), len(block)
    if places and not 0 <= places[0] <= places[-1] < length:
        wrong = places[0] if places[0] < 0 else places[-1]
        raise SpanOutOfRange(f"{block.name} has the tokens 0 to {length - 1} and no token {wrong}.")
    marks = [False] * length
    for place in places:
        marks[place] = True
    cuts = [0, *(at for at in range(1, length) if marks[at] != marks[at - 1]), length] if length else [0]
    rows: list[Row] = []
    spans: list[Span] = []
    for lo, hi in pairwise(cuts):
        if not marks[lo]:
            spans.append(Span(block, lo, hi))
            continue
        own = fresh(block.name)
        rows.append(Row(View(*before.items, *spans, own), ids=_ids(block, lo, hi)))
        spans.append(Span(own))
    return rows, spans


def forget_rows(view: View, start: int, end: int, fresh: Callable[[str], Block]) -> tuple[list[Row], View]:
    """The rows that encode again what follows positions ``start`` to ``end``, and the view in which it stands.

    Raises:
        SpanOutOfRange, as for ``View.splice``. ViewError: a placed span follows. BadRequest: a latent step does.
    """
    head, _, tail = view.split(start, end)
    if any(isinstance(item, Span) and item.at is not None for item in tail):
        raise ViewError("What follows is encoded again one behind the other, so none of it may be placed.")
    items: list[Span | Gap] = list(head)
    rows: list[Row] = []
    for item in tail:
        if isinstance(item, Gap):
            items.append(item)
            continue
        own = fresh(item.block.name)
        if len(item):
            rows.append(Row(View(*items, own), ids=_ids(item.block, item.lo, item.lo + len(item))))
        items.append(Span(own))
    return rows, View(*items)


def apart(backend: Backend, old: Block, new: Block) -> Tensor:
    """How far each token's values in ``old`` are from those in ``new``, which holds the same tokens: ``[tokens]``.

    The squared distance over all layers and heads, 0 where nothing differs.
    """
    count = len(old)
    if not count:
        return torch.zeros(0, dtype=torch.float64)
    before, after = (backend.read(one.table.slot_tensor(0, count)) for one in (old, new))
    layers = []
    for at, pairs in enumerate(zip(before, after, strict=True)):
        a, b = (backend.cache.numbers(at, *pair)[1].double() for pair in pairs)
        layers.append((a - b).square().sum((0, 2)))
    return torch.stack(layers).sum(0)


def _ids(block: Block, lo: int, hi: int) -> Sequence[int]:
    ids = block.ids[lo:hi]
    if LATENT in ids:
        raise BadRequest(f"Token {lo + ids.index(LATENT)} of {block.name} is a latent step and cannot be read again.")
    return ids
