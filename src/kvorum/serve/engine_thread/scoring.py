"""The log-probabilities of given text: what ``echo`` with ``logprobs`` returns, and log-likelihoods are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvorum.api import Engine
from kvorum.engine.budget import Ledger
from kvorum.engine.row import Cost, Row
from kvorum.kv import View
from kvorum.sampling.reference import likeliest
from kvorum.sampling.sampling import Pick

PIECE = 128
"""Tokens whose logits are held at a time: ``[PIECE, vocab]`` floats."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A text's tokens with their natural-log probabilities and the likeliest ones in each place; None for the first."""

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    top: tuple[tuple[Pick, ...] | None, ...]


async def score(engine: Engine, view: View, ids: Sequence[int], top: int) -> tuple[Scored, Tensor, Ledger]:
    """Append ``ids`` to the view's open end; their scores, the logits ``[vocab]`` behind the last, and the cost."""
    cost = Ledger()
    logprobs: list[float | None] = []
    likely: list[tuple[Pick, ...] | None] = []
    last: Tensor | None = None
    piece = min(PIECE, engine.prefill_chunk)
    for start in range(0, len(ids), piece):
        part = list(ids[start : start + piece])
        reply = await engine.scheduler.submit([Row(view, ids=part)], [Cost(0)], every=True)
        assert reply.output.every is not None
        cost.add(reply.cost)
        logits = reply.output.every[0].detach().to("cpu", torch.float32)
        rows = logits[:-1] if last is None else torch.cat([last[None], logits[:-1]])
        targets = torch.tensor(part if last is not None else part[1:], dtype=torch.long)
        if last is None:
            logprobs.append(None)
            likely.append(None)
        if len(targets):
            totals = torch.logsumexp(rows, dim=1).tolist()
            found = rows.gather(1, targets[:, None])[:, 0].tolist()
            logprobs += [value - total for value, total in zip(found, totals, strict=True)]
            likely += [likeliest(row, top, total) for row, total in zip(rows, totals, strict=True)]
        last = logits[-1].clone()
    assert last is not None
    return Scored(tuple(ids), tuple(logprobs), tuple(likely)), last, cost
