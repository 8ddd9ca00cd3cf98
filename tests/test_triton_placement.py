"""The Triton kernels on placed spans and patched blocks, in Triton's interpreter or, where there is one, on a GPU.

Covers siblings at one position, short ones and ones that programs share, empty positions, a fork in the middle of a
sibling, ragged rows, patched blocks that were saved and loaded, windows and several thetas; and random programs of
these. The twin is the reference, which the dense oracle judges in ``test_placement.py``.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import families
from interpreter import DEVICE
from kvorum import Block, Engine, Row, Span, View
from kvorum.attention import view_structure
from kvorum.attention.triton import tables as triton_tables
from test_placement import model
from view_programs import Places, play, really_met, reloaded


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of a few tokens are shared between programs too."""
    monkeypatch.setattr(triton_tables, "SHORTEST", 16)


def engine(name: str, attention: str, page_size: int = 4) -> Engine:
    return Engine(model(name, torch.float32).to(DEVICE), kv_tokens=2048, page_size=page_size, attention=attention)


def siblings(made: Engine) -> list[Tensor]:
    """The logits of ragged rows behind siblings at one position, and behind what was read again there."""
    prompt, *attempts = (made.block() for _ in range(4))
    ids = families.random_ids(64, 5).tolist()
    made.forward([Row(View(prompt), ids=ids[:20])])
    made.forward(
        [
            Row(View(prompt, one), ids=ids[at : at + n])
            for at, one, n in zip(range(3), attempts, (3, 19, 33), strict=True)
        ]
    )
    a, b, c = attempts
    beside: list[Block | Span] = [prompt, *(Span(one, at=20) for one in attempts)]
    joined = View(*beside, made.block())
    again = reloaded(made, made.patch(b, View(prompt, Span(a, at=20), Span(c, 0, 30, at=20)), range(2, 9)))
    views = [
        joined,
        View(*beside, made.block()),
        View(prompt, Span(a, at=30), Span(c, 4, 11, at=22), Span(again, at=26), made.block()),
        joined.fork(25, made.block()),
        View(Span(b, 0, 9, at=3), Span(b, 9, at=3), Span(prompt, 0, 5, at=40), Span(made.block(), at=60)),
    ]
    rows = [Row(view, ids=ids[:n]) for view, n in zip(views, (1, 3, 2, 1, 4), strict=True)]
    out = made.forward(rows, every=True)
    assert out.every is not None
    return list(out.every)


@pytest.mark.parametrize("name", ["theta 100", "mistral", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_siblings_at_one_position(name: str) -> None:
    ours, twin = (siblings(engine(name, attention)) for attention in ("triton", "reference"))
    for a, b in zip(ours, twin, strict=True):
        assert float((a - b).abs().max() / b.abs().max()) < 5e-6


def test_random_placements_and_patches() -> None:
    met = Counter[str]()

    @settings(max_examples=6)
    @given(
        data=st.data(),
        name=st.sampled_from(("theta 100", "mistral", "gemma3")),
        page_size=st.sampled_from((1, 16)),
        join_below=st.sampled_from((0, 64)),
    )
    def check(data: st.DataObject, name: str, page_size: int, join_below: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(view_structure, "JOIN_BELOW", join_below)
            maker = Places(data.draw, engine(name, "reference", page_size), vocab=families.VOCAB, width=48)
            maker.make(data.draw(st.integers(4, 6)))
            ours = play(engine(name, "triton", page_size), maker.script)
        for found, said in zip(ours.logits + ours.hidden, maker.played.logits + maker.played.hidden, strict=True):
            for a, b in zip(found, said, strict=True):
                assert float((a - b).abs().max()) < 2e-4 * max(1.0, float(b.abs().max()))
        met.update(maker.reached)

    check()
    really_met(met, placed=0.2, siblings=0.15, patched=0.02)
