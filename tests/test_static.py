"""Steady decoding on static buffers: buckets, padding that changes nothing, reuse, and what ends a capture.

The replay is a stand-in that runs the same function on the same buffers again; what a CUDA graph adds to it needs a GPU
and runs there in place of the stand-in. Covers teams that grow, change their views and sizes between ticks, buffers
filled with NaN, hidden states, replaced weights, and models that refuse to be captured. Does not cover speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import families
import local_backend
from interpreter import DEVICE
from kvorum import Engine, Row, Span, View
from kvorum.attention.plan import Planner
from kvorum.attention.triton.attention import TritonAttention
from kvorum.attention.triton.tables import Columns, Sizes, sections
from kvorum.models.forward import Forward
from kvorum.models.runners import graphs as static
from kvorum.models.runners.graphs import GraphRunner, Replay


class Replays:
    """A stand-in for graphs that counts."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, run: Replay) -> Replay:
        self.captured += 1
        replay = run if DEVICE == "cpu" else static.capture_cuda()(run)

        def counted() -> Forward:
            self.replayed += 1
            return replay()

        return counted


@cache
def model(name: str) -> Any:
    return families.build(name, device=DEVICE)


def engine(name: str = "llama", *, capture: Callable[[Replay], Replay] | None = None) -> Engine:
    made = Engine(model(name), kv_tokens=512, page_size=4, attention="triton", runner="generic")
    if capture is not None:
        backend = local_backend.backend(made)
        backend.runner = GraphRunner(made.model, backend.attention, capture)
    return made


def runner(made: Engine) -> GraphRunner:
    found = local_backend.backend(made).runner
    assert isinstance(found, GraphRunner)
    return found


def decoded(made: Engine) -> list[Tensor]:
    """Logits and hidden states of a team that decodes, is joined by a third worker and prunes a view."""
    found: list[Tensor] = []
    prompt, *own = (made.block() for _ in range(4))
    made.forward([Row(View(prompt), ids=families.random_ids(21).tolist())])
    views = [View(prompt, own[1], own[0]), View(prompt, own[0], own[1])]
    for step in range(7):
        if step == 3:
            views.append(View(Span(prompt, 0, 3), Span(prompt, 9, 12), own[0], own[2]))
        if step == 5:
            views[0] = views[0].splice(2, 5)
        rows = [Row(view, ids=[step + at]) for at, view in enumerate(views)]
        out = made.forward(rows, hidden=step > 5)
        found.append(out.logits)
        if out.hidden is not None:
            found.append(out.hidden)
    return found


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nobody has written holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
def test_replays_are_the_eager_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With sinks and windows."""
    monkeypatch.setattr(static, "AFTER", 0)
    replays = Replays()
    made = engine("gpt-oss", capture=replays)
    ours, eager = decoded(made), decoded(engine("gpt-oss"))
    for a, b in zip(ours, eager, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max() / b.abs().max()) < 2e-6
    assert replays.replayed == 7
    assert 1 < replays.captured == len(runner(made).buckets) < 7
    assert runner(made).refused is None


def test_results_are_the_callers_own() -> None:
    """A replay writes where the one before it wrote; logits that were handed out stay."""
    made = engine(capture=Replays())
    a = made.block()
    made.forward([Row(View(a), ids=[1, 2, 3])])
    outs = [made.forward([Row(View(a), ids=[at])]).logits for at in range(5)]
    kept = [out.clone() for out in outs]
    made.forward([Row(View(a), ids=[9])])
    assert all(torch.equal(out, copy) for out, copy in zip(outs, kept, strict=True))


def test_several_tokens_run_eagerly() -> None:
    replays = Replays()
    made = engine(capture=replays)
    a, b = made.block(), made.block()
    for _ in range(5):
        made.forward([Row(View(a), ids=[1, 2]), Row(View(a, b), ids=[3])])
    assert replays.captured == 0


def test_replaced_weights_end_the_captures() -> None:
    """In place is fine; a parameter that lies elsewhere is not."""
    replays = Replays()
    made = engine(capture=replays)
    a, b = made.block(), made.block()

    def tick() -> None:
        made.forward([Row(View(a), ids=[1]), Row(View(b), ids=[2])])

    for _ in range(4):
        tick()
    assert replays.captured == 1
    weight = next(made.model.parameters())
    with torch.no_grad():
        weight.mul_(1.0)
    tick()
    assert replays.replayed == 3
    weight.data = weight.data.clone()
    tick()
    assert replays.replayed == 3
    assert runner(made).buckets == ()


def test_the_least_used_bucket_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "AFTER", 0)
    monkeypatch.setattr(static, "KEEP", 2)
    replays = Replays()
    made = engine(capture=replays)
    blocks = [made.block() for _ in range(4)]
    for count in (1, 2, 1, 4, 1, 2):
        made.forward([Row(View(block), ids=[1]) for block in blocks[:count]])
    assert replays.captured == 4  # two rows were forgotten for four
    assert [bucket.key[0].tokens for bucket in runner(made).buckets if isinstance(bucket.key, tuple)] == [1, 2]


def test_a_model_that_cannot_be_captured_runs_eagerly() -> None:
    def refuse(run: Replay) -> Replay:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    made, plain = engine(capture=refuse), engine()
    a, b = made.block(), plain.block()
    for _ in range(2):
        made.forward([Row(View(a), ids=[1])])
    with pytest.warns(UserWarning, match="runs eagerly: operation not permitted when stream is capturing$"):
        made.forward([Row(View(a), ids=[1])])
    ours = made.forward([Row(View(a), ids=[1])]).logits
    for _ in range(4):
        eager = plain.forward([Row(View(b), ids=[1])]).logits
    assert torch.allclose(ours, eager, atol=1e-6)


def test_tables_with_more_room_hold_the_same_and_nothing_else() -> None:
    made = engine()
    attention = local_backend.backend(made).attention
    assert isinstance(attention, TritonAttention)
    prompt, a, b = made.block(), made.block(), made.block()
    for block, count in ((prompt, 30), (a, 5), (b, 2)):
        block.append([0] * count)
    views = [View(Span(prompt, 4), Span(a, 0, 2), Span(prompt, 0, 4), b), View(b, prompt, a)]
    (tables,) = attention.tables(Planner().plan(views, [1, 1]))
    room = Sizes(*(2 * size + 3 for size in tables.sizes))
    tight, roomy = tables.packed(tables.sizes), tables.packed(room)
    for name, section, wider in zip(Columns._fields, sections(tables.sizes), sections(room), strict=True):
        table = getattr(tables.columns, name).ravel()
        assert tight[section][: len(table)].tolist() == table.tolist() == roomy[wider][: len(table)].tolist()
        padding = {"slots": -1, "ends": len(tables.columns.parts)}.get(name, 0)
        assert set(roomy[wider][len(table) :]) == {padding}
        assert wider.start % 4 == 0
    # every query of every segment meets every key exactly once, and each result is one token's
    met = [
        (q, k)
        for item in tables.columns.items
        for q in range(item[0], item[0] + item[1])
        for k in range(item[5], item[6])
    ]
    assert len(set(met)) == len(met)
    assert sorted(tables.columns.parts) == list(range(len(tables.columns.parts)))
    assert int((tables.columns.items[:, 1]).sum()) == len(tables.columns.parts) == tables.columns.ends[-1]
