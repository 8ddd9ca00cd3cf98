"""Every family of ``families.ACCEPTED`` over views.

Covers, in each: A sees B (A's view is B, then A) against the plain transformers forward over [B, A]; and two workers
that see each other's tokens of the same tick, with a gap, a span and growth, against a slow attention function that
keeps lists and rotates dense keys for every row. The slow one takes a layer's rotation as probed (see
``test_rope_probe.py``) and everything else from the seam's own description. Not covered: quantised and native paths.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from families import ACCEPTED, build, random_ids
from kvorum import Engine, Gap, Row, Span, View
from kvorum.attention.kernel import Softmax
from kvorum.models import seam

FAMILIES = sorted(ACCEPTED)


def test_there_are_enough() -> None:
    assert len(FAMILIES) >= 29


@cache
def engine(name: str) -> Engine:
    return Engine(build(name), kv_tokens=256, page_size=4, attention="reference")


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sees_b_is_the_plain_forward(name: str) -> None:
    """Every logit of both, A written in turns; the whole is longer than the families' windows."""
    made, ids = engine(name), random_ids(24, 3)
    with torch.no_grad():
        plain = made.model(input_ids=ids[None], use_cache=False).logits[0]
    a, b = made.block(), made.block()
    parts = [made.forward([Row(View(b), ids=ids[:11].tolist())], every=True)]
    for lo, hi in ((11, 14), (14, 15), (15, 24)):
        parts.append(made.forward([Row(View(b, a), ids=ids[lo:hi].tolist())], every=True))
    ours = torch.cat([part.every[0] for part in parts if part.every is not None])
    assert ours.shape == plain.shape
    assert error(ours, plain) < 2e-4


class Slow:
    """A tick for the seam that keeps, per block and layer, plain lists of unrotated keys and of values.

    ``seen``: per row, its items as (block, lo, hi or None) or a number of empty positions.
    """

    def __init__(self, rotaries: list[Any]) -> None:
        self.rotaries = rotaries
        self.memory: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = {}
        self.seen: list[tuple[list[Any], int]] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax, /) -> Tensor:
        at = 0
        for items, count in self.seen:
            self.memory.setdefault((items[-1][0], layer), []).extend((k[:, i], v[:, i]) for i in range(at, at + count))
            at += count
        out, at = [], 0
        for items, count in self.seen:
            for token in range(count):
                out.append(self.one(layer, items, count - token, q[:, at + token], softmax))
            at += count
        return torch.stack(out)

    def one(
        self,
        layer: int,
        items: list[Any],
        behind: int,
        query: Tensor,
        softmax: Softmax,
    ) -> Tensor:
        """One new token, ``behind`` places before the end of its view (1: the last)."""
        scale, window, softcap, sinks = softmax
        keys, values, places, position = [], [], [], 0
        for item in items:
            if isinstance(item, int):
                position += item
                continue
            block, lo, hi = item
            for key, value in self.memory.get((block, layer), [])[lo:hi]:
                keys.append(key)
                values.append(value)
                places.append(position)
                position += 1
        keep = len(keys) - behind + 1  # the own tokens after this one are ahead of it
        place = places[keep - 1]
        nearest = [i for i in range(keep) if window is None or place - places[i] < window]
        rotate = self.rotaries[layer].rotate
        key = rotate(torch.stack([keys[i] for i in nearest], dim=1), torch.tensor([places[i] for i in nearest]))
        value = torch.stack([values[i] for i in nearest], dim=1)
        turned = rotate(query[:, None], torch.tensor([place]))
        group = query.shape[0] // key.shape[0]
        heads = []
        for head in range(query.shape[0]):
            score = (key[head // group] @ turned[head, 0]) * scale
            if softcap is not None:
                score = softcap * torch.tanh(score / softcap)
            weight = score.exp()
            rest = sinks[head].exp() if sinks is not None else 0.0
            heads.append((weight / (weight.sum() + rest)) @ value[head // group])
        return torch.stack(heads)


@pytest.mark.parametrize("name", FAMILIES)
def test_workers_that_see_each_other(name: str) -> None:
    made = engine(name)
    slow = Slow([layer.rotary for layer in made.shape.layers])
    blocks = {key: made.block(key) for key in "pab"}
    views = {
        "p": View(blocks["p"]),
        "a": View(blocks["p"], blocks["b"], blocks["a"]),
        "b": View(Span(blocks["p"], 0, 0), Gap(2), blocks["a"], blocks["b"]),
    }
    told: dict[str, list[Any]] = {
        "p": [("p", 0, None)],
        "a": [("p", 0, None), ("b", 0, None), ("a", 0, None)],
        "b": [2, ("a", 0, None), ("b", 0, None)],
    }
    random, at = random_ids(60, 8).tolist(), 0
    for tick, counts in enumerate(({"p": 6}, {"a": 3, "b": 2}, {"b": 1, "a": 1}, {"a": 2, "p": 1, "b": 4})):
        if tick == 2:  # b comes to see a part of the prompt, too
            views["b"] = View(Span(blocks["p"], 1, 4), Gap(2), blocks["a"], blocks["b"])
            told["b"] = [("p", 1, 4), *told["b"]]
        ids = {}
        for key, count in counts.items():
            ids[key], at = random[at : at + count], at + count
        ours = made.forward([Row(views[key], ids=ids[key]) for key in counts], every=True)
        assert ours.every is not None
        slow.seen = [(told[key], count) for key, count in counts.items()]
        packed = torch.tensor([token for key in counts for token in ids[key]])
        theirs = seam.call(made.model, packed, attention=slow, logits_index=torch.arange(len(packed)))
        assert error(torch.cat(ours.every), theirs.logits) < 2e-4, f"tick {tick}"
