"""A tick as bytes: what the workers are asked, and what they answer.

A plan is numbers and goes as a handful of whole-number tensors, however many segments it has. How draws are packed
stands in ``packed_draws``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kvorum.attention.plan import Plan, Segment
from kvorum.attention.tap import Tap
from kvorum.backends.backend import Work
from kvorum.backends.vllm.packed_draws import pack_draws, unpack_draws
from kvorum.backends.vllm.static_ticks import Static
from kvorum.backends.vllm.tensors import Header, pack, unpack
from kvorum.errors import BadRequest
from kvorum.sampling.sampling import Draw, Pick


class Order(NamedTuple):
    """A tick as a worker gets it. ``number`` names its logits; those of ``forget`` will not be asked for any more.
    ``static``: in which buffers that stay it runs, None: in none; those of ``drop`` are not needed any more."""

    number: int
    forget: Sequence[int]
    work: Work
    static: Static | None = None
    drop: Sequence[int] = ()


class Answer(NamedTuple):
    """What one rank says of a tick: the first of the last stage all that was asked for, others shares at most.
    ``refused``: why it could not be captured, where it was to be. ``moved``: what was captured before holds no more."""

    picks: Sequence[Pick | BadRequest | None] = ()
    hidden: Tensor | None = None
    shares: Tensor | None = None
    refused: str = ""
    moved: bool = False


def pack_order(order: Order, draws: Sequence[Draw | None]) -> bytes:
    """An order as bytes; ``draws``: what its work's function of that name says."""
    work = order.work
    header: dict[str, Header] = {"number": order.number, "forget": list(order.forget), "hidden": work.hidden}
    header |= {"static": order.static, "drop": list(order.drop)}
    tensors = {"ids": torch.tensor(work.ids, dtype=torch.long), "wanted": work.wanted}
    _add_plan(work.plan, header, tensors)
    header["draws"] = pack_draws(draws, tensors)
    if work.lasts is not None:
        tensors["lasts"] = work.lasts
    if work.embeds:
        header["embeds"] = [[start, len(rows)] for start, rows in work.embeds]
        tensors["embeds"] = torch.cat([rows.detach().cpu() for _, rows in work.embeds])
    if work.tap is not None:
        header["tap"] = [work.tap.count, work.tap.tokens.tolist(), len(work.tap.lines)]
        tensors["groups"] = work.tap.groups
    return pack(header, tensors)


def unpack_order(data: bytes, layers: int) -> Order:
    """The order; a tap in it is one for ``layers`` layers."""
    header, tensors = unpack(data)
    draws = unpack_draws(header["draws"], tensors)
    starts = header.get("embeds", [])
    pieces = tensors["embeds"].split([length for _, length in starts]) if starts else ()
    tap = None
    if "tap" in header:
        count, tokens, of = header["tap"]
        tap = Tap(tensors["groups"], count, tokens, of, layers)
    work = Work(
        plan=_plan(header, tensors),
        ids=tensors["ids"].tolist(),
        embeds=[(start, piece) for (start, _), piece in zip(starts, pieces, strict=True)],
        wanted=tensors["wanted"],
        lasts=tensors.get("lasts"),
        hidden=header["hidden"],
        draws=lambda: draws,
        tap=tap,
    )
    static = None if header["static"] is None else Static(*header["static"])
    return Order(header["number"], header["forget"], work, static, header["drop"])


def pack_answer(answer: Answer) -> bytes:
    """An answer as bytes."""
    picks = [
        None if pick is None else str(pick) if isinstance(pick, BadRequest) else [pick.id, pick.logprob]
        for pick in answer.picks
    ]
    found = {"hidden": answer.hidden, "shares": answer.shares}
    return pack([picks, answer.refused, answer.moved], {name: x for name, x in found.items() if x is not None})


def unpack_answer(data: bytes) -> Answer:
    """The answer."""
    (told, refused, moved), tensors = unpack(data)
    picks = [
        None if pick is None else BadRequest(pick) if isinstance(pick, str) else Pick(pick[0], pick[1]) for pick in told
    ]
    return Answer(picks, tensors.get("hidden"), tensors.get("shares"), refused, moved)


def _add_plan(plan: Plan, header: dict[str, Header], tensors: dict[str, Tensor]) -> None:
    header["counts"] = list(plan.counts)
    header["segments"] = [
        [
            [s.slots.start, s.slots.stop] if isinstance(s.slots, slice) else None,
            *(s.first, s.length, s.shift is not None, s.masked, list(s.rows), s.stop, s.everyone),
        ]
        for s in plan.segments
    ]
    tensors |= {"slots": plan.slots, "index": plan.index, "queries": plan.queries, "deltas": plan.deltas}
    tensors["scattered"] = _joined([s.slots for s in plan.segments if isinstance(s.slots, Tensor)])
    tensors["shifts"] = _joined([s.shift for s in plan.segments if s.shift is not None])


def _plan(header: dict[str, Header], tensors: dict[str, Tensor]) -> Plan:
    queries, deltas = tensors["queries"], tensors["deltas"]
    segments = []
    start = scattered = shifts = 0
    for place, first, length, shifted, masked, rows, stop, everyone in header["segments"]:
        slots: slice | Tensor
        if place is None:
            slots = tensors["scattered"][scattered : scattered + length]
            scattered += length
        else:
            slots = slice(*place)
        shift = tensors["shifts"][shifts : shifts + length] if shifted else None
        shifts += length if shifted else 0
        whose = tuple(rows)
        segments.append(Segment(slots, first, length, shift, masked, whose, queries, deltas, start, stop, everyone))
        start = stop
    ends = tuple(segment.stop for segment in segments)
    return Plan(tensors["slots"], tensors["index"], tuple(header["counts"]), tuple(segments), queries, deltas, ends)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)
