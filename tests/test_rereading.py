"""Parts of a block that are read again in a new place (``patch``), and what follows a cut that is (``forget``).

Covers both against the dense oracle in float64, on random blocks, choices and contexts, several models; the two ends of
a patch (none: the block as it is; all: a full prefill) and the first k, a cache in int8, long reads in parts, what a
deviation measures, that hidden and forgotten differ, costs, and errors. What it does to answers is measured by
``studies/patch.yaml``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import families
from kvorum import LATENT, Block, Engine, Gap, Row, Span, View
from kvorum.errors import BadRequest, SpanOutOfRange, ViewError
from kvorum.native_extension import kernels
from oracle import Oracle
from test_placement import model

OLD, NEW, TEXT, ASKED = [3, 1, 4, 1, 5, 9], [2, 7, 1, 8], [6, 2, 8, 3, 1, 8, 5, 3, 0, 7], [11, 12, 13]


@cache
def engine(name: str = "llama", chunk: int = 512) -> Engine:
    return Engine(model(name), kv_tokens=1024, page_size=4, prefill_chunk=chunk)


def written(made: Engine) -> tuple[Block, Block]:
    """A block that was written behind one beginning, and another beginning."""
    old, new, text = made.block("old"), made.block("new"), made.block("text")
    made.forward([Row(View(old), ids=OLD), Row(View(new), ids=NEW)])
    made.forward([Row(View(old, text), ids=TEXT)])
    return new, text


def read(made: Engine, *seen: Block | Span | Gap) -> Tensor:
    out = made.forward([Row(View(*seen, made.block()), ids=ASKED)], every=True)
    assert out.every is not None
    return out.every[0]


def runs(chosen: set[int]) -> list[tuple[bool, int, int]]:
    """(chosen or not, first, behind the last) of the text, in order."""
    found: list[tuple[bool, int, int]] = []
    for at in range(len(TEXT)):
        if found and found[-1][0] == (at in chosen):
            found[-1] = (found[-1][0], found[-1][1], at + 1)
        else:
            found.append((at in chosen, at, at + 1))
    return found


@settings(max_examples=60)
@given(
    name=st.sampled_from(("llama", "theta 100", "mistral", "gemma3")),
    chosen=st.sets(st.integers(0, len(TEXT) - 1)),
    chunk=st.sampled_from((2, 512)),
    lead=st.integers(0, 3),
)
def test_a_patch_equals_the_dense_oracle(name: str, chosen: set[int], chunk: int, lead: int) -> None:
    made = engine(name, chunk)
    new, text = written(made)
    patched = made.patch(text, View(new, Gap(lead)), chosen)
    assert patched.ids == TEXT
    found = read(made, new, Gap(lead), patched)
    oracle = Oracle(model(name))
    oracle.tick([([("old", 0, None)], OLD), ([("new", 0, None)], NEW)])
    oracle.tick([([("old", 0, None), ("text", 0, None)], TEXT)])
    rows: list[Any] = []
    seen: list[Any] = [("new", 0, len(NEW)), lead]
    parts: list[Any] = []
    for fresh, lo, hi in runs(chosen):
        if fresh:
            rows.append(([*seen, (f"again{lo}", 0, None)], TEXT[lo:hi]))
        parts.append((f"again{lo}", 0, hi - lo) if fresh else ("text", lo, hi))
        seen.append(parts[-1])
    if rows:
        oracle.tick(rows)
    oracle.move(parts, "patched")
    oracle.tick([([("new", 0, None), lead, ("patched", 0, None), ("own", 0, None)], ASKED)])
    assert float((oracle.solve().logits[-len(ASKED) :] - found).abs().max()) < 1e-9


@pytest.mark.parametrize("attention", ["reference", "native"])
def test_a_patch_of_an_int8_cache_has_the_bytes_of_what_was_kept_and_of_what_was_read_again(attention: str) -> None:
    if attention == "native" and kernels() is None:
        pytest.skip("kvorum-native is not installed")
    narrow = families.build("llama", torch.float32)
    made = Engine(narrow, kv_tokens=1024, page_size=4, attention=attention, kv_dtype="int8")
    new, text = written(made)
    chosen = {0, 1, 4, 9}
    patched = made.patch(text, View(new), chosen)
    seen: list[Any] = [new]
    rows: list[Row] = []
    parts: list[tuple[Block, int, int]] = []
    for fresh, lo, hi in runs(chosen):
        own = made.block() if fresh else text
        if fresh:
            rows.append(Row(View(*seen, own), ids=TEXT[lo:hi]))
        parts.append((own, 0, hi - lo) if fresh else (text, lo, hi))
        seen.append(own if fresh else Span(text, lo, hi))
    made.forward(rows)
    slots = torch.cat([block.table.slot_tensor(lo, hi) for block, lo, hi in parts])
    found, wanted = (made.backend.read(one) for one in (patched.table.slot_tensor(0, len(TEXT)), slots))
    for (_, values), (_, others) in zip(found, wanted, strict=True):  # keys are turned to their index in the patch
        assert values.dtype == torch.int8
        assert torch.equal(values, others)
    assert float((read(made, new, patched) - read(made, new, text)).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_from_nothing_to_all_of_it(name: str) -> None:
    """No token: the block as it stands there. The first k: a fresh beginning and the old rest. All: a full prefill."""
    made = engine(name)
    new, text = written(made)
    fresh, whole = made.block(), made.block()
    made.forward([Row(View(new, fresh), ids=TEXT[:4]), Row(View(new, whole), ids=TEXT)])
    cases = [(0, (text,)), (4, (fresh, Span(text, 4))), (len(TEXT), (whole,))]
    answers = []
    for count, same in cases:
        answers.append(read(made, new, made.patch(text, View(new), range(count))))
        assert float((answers[-1] - read(made, new, *same)).abs().max()) < 1e-9
    assert float((answers[0] - answers[2]).abs().max()) > 1e-3
    assert float((answers[1] - answers[2]).abs().max()) > 1e-3


def test_the_deviation_is_that_of_the_values() -> None:
    """Nothing deviates behind what a block was written behind, nor what was read again."""
    made = engine()
    new, text = written(made)
    old = made.block()
    made.forward([Row(View(old), ids=OLD)])
    assert float(made.deviation(text, View(old)).max()) < 1e-18
    far = made.deviation(text, View(new))
    assert far.shape == (len(TEXT),)
    assert float(far.min()) > 1e-6
    half = made.patch(text, View(new), range(5))
    assert float(made.deviation(half, View(new))[:5].max()) < 1e-18
    assert float(made.deviation(half, View(new))[5:].min()) > 1e-6
    assert made.deviation(made.block(), View(new)).shape == (0,)


def test_hidden_is_not_forgotten() -> None:
    """What followed a cut carries on what it read there, until it is encoded again."""
    made = engine()
    prompt, between, behind = made.block(), made.block(), made.block()
    made.forward([Row(View(prompt), ids=OLD)])
    made.forward([Row(View(prompt, between), ids=NEW)])
    made.forward([Row(View(prompt, between, behind), ids=TEXT)])
    view = View(prompt, between, behind)
    hidden, forgotten = view.splice(8, 10), made.forget(view, 8, 10)
    assert hidden.ids == forgotten.ids == OLD + NEW[:2] + TEXT
    anew = made.block()
    made.forward([Row(View(anew), ids=OLD + NEW[:2] + TEXT)])
    assert forgotten.own is not behind
    told = [made.forward([Row(View(*one.items, made.block()), ids=ASKED)]).logits[0] for one in (hidden, forgotten)]
    plain = made.forward([Row(View(anew, made.block()), ids=ASKED)]).logits[0]
    assert float((told[1] - plain).abs().max()) < 1e-9
    assert float((told[0] - plain).abs().max()) > 1e-3
    assert len(behind) == len(TEXT)
    before = len(forgotten)
    made.forward([Row(forgotten, ids=ASKED)])  # it can be written on
    assert (len(forgotten), len(behind)) == (before + len(ASKED), len(TEXT))


@settings(max_examples=40)
@given(data=st.data())
def test_forgotten_is_as_if_it_had_never_been(data: st.DataObject) -> None:
    made = engine("mistral", data.draw(st.sampled_from((2, 512))))
    pieces = [data.draw(st.lists(st.integers(0, families.VOCAB - 1), min_size=1, max_size=5)) for _ in range(3)]
    blocks = [made.block() for _ in pieces]
    for at, piece in enumerate(pieces):
        made.forward([Row(View(*blocks[: at + 1]), ids=piece)])
    view = View(*blocks)
    start, end = sorted(data.draw(st.lists(st.integers(0, len(view)), min_size=2, max_size=2)))
    left = [token for at, token in enumerate(view.ids) if not start <= at < end]
    forgotten = made.forget(view, start, end)
    whole = made.block()
    if left:
        made.forward([Row(View(whole), ids=left)])
    assert forgotten.ids == left
    assert float((read(made, *forgotten.items) - read(made, whole)).abs().max()) < 1e-9


def test_what_it_costs_and_leaves() -> None:
    made = engine()
    new, text = written(made)
    before, ticks, length, free = made.ledger.prefill, made.ledger.ticks, len(text), made.pool.free_tokens
    patched = made.patch(text, View(new), (0, 1, 5))
    assert (made.ledger.prefill - before, made.ledger.ticks - ticks) == (3, 1)
    assert (len(text), len(new)) == (length, len(NEW))
    assert not patched.sealed
    del patched
    assert made.pool.free_tokens == free


def test_what_cannot_be_read_again() -> None:
    made = engine()
    new, text = written(made)
    for wrong in ((len(TEXT),), (-1,)):
        with pytest.raises(SpanOutOfRange, match="no token"):
            made.patch(text, View(new), wrong)
    latent = made.block("latent")
    made.forward([Row(View(latent), embeds=torch.zeros(2, 48, dtype=torch.float64))])
    assert latent.ids == [LATENT] * 2
    with pytest.raises(BadRequest, match="latent step"):
        made.patch(latent, View(new), (1,))
    with pytest.raises(ViewError, match="may be placed"):
        made.forget(View(new, Span(text, at=20)), 0, 2)
    with pytest.raises(SpanOutOfRange):
        made.forget(View(new), 0, 9)
