"""Ticks on static buffers on vLLM's workers: the logits of eager ticks, on one process, over a cut, over stages.

Triton's interpreter attends, and nothing is captured: what a CUDA graph adds needs a GPU (not measured on one). A team
decodes, is joined, prunes a view, wants hidden states and draws; the driver decides alike for all ranks. Also a rank
that cannot capture, and that all are eager from then on.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from spread_engines import MARKS, in_this_process, toy

import interpreter as interpreter  # makes it quick, and skips this where there is no triton
from kvorum import Engine, Row, Span, View
from kvorum.backends.vllm import static_ticks
from kvorum.backends.vllm.backend import VllmBackend
from kvorum.backends.vllm.static_ticks import StaticTicks

pytestmark = MARKS


@contextmanager
def engine(toy: Path, *, runner: str = "graphs", tensor: int = 1, pipeline: int = 1) -> Iterator[Engine]:
    how: dict[str, Any] = {"attention": "triton", "runner": runner, "kv_tokens": 512, "page_size": 4}
    if tensor == pipeline == 1:
        with in_this_process(toy, **how) as made:
            yield made
        return
    made = Engine.load(toy, backend="vllm", tensor_parallel=tensor, pipeline_parallel=pipeline, dtype="float32", **how)
    try:
        yield made
    finally:
        made.backend.close()


def ticks(made: Engine) -> StaticTicks | None:
    assert isinstance(made.backend, VllmBackend)
    return made.backend.static


def decoded(made: Engine) -> list[torch.Tensor]:
    """Logits and hidden states of a team that decodes, is joined by a third worker and prunes a view."""
    found: list[torch.Tensor] = []
    prompt, *own = (made.block() for _ in range(4))
    made.forward([Row(View(prompt), ids=list(range(5, 26)))])
    views = [View(prompt, own[1], own[0]), View(prompt, own[0], own[1])]
    for step in range(8):
        if step == 4:
            views.append(View(Span(prompt, 0, 3), Span(prompt, 9, 12), own[0], own[2]))
        if step == 6:
            views[0] = views[0].splice(2, 5)
        out = made.forward([Row(view, ids=[step + at]) for at, view in enumerate(views)], hidden=step > 5)
        found.append(out.logits)
        if out.hidden is not None:
            found.append(out.hidden)
    return found


def close(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max() / b.abs().max()) < 1e-5


@pytest.fixture(scope="module")
def eager(toy: Path) -> list[torch.Tensor]:
    """What the local backend computes, one tick behind the other."""
    here = Engine.load(toy, quantize=None, dtype="float32", kv_tokens=512, page_size=4, attention="reference")
    return decoded(here)


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (1, 2)])
def test_static_ticks_are_the_eager_ones(
    tensor: int, pipeline: int, toy: Path, eager: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_ticks, "AFTER", 0)
    with engine(toy, tensor=tensor, pipeline=pipeline) as made:
        close(decoded(made), eager)
        counted = ticks(made)
        assert counted is not None
        assert counted.refused is None
        assert 1 < counted.captured < 8
        assert counted.replayed == 8 - counted.captured


def test_eager_ticks_are_asked_for_or_had_on_a_cpu(toy: Path, eager: list[torch.Tensor]) -> None:
    for runner in ("auto", "generic"):
        with engine(toy, runner=runner) as made:
            assert ticks(made) is None
            if runner == "generic":
                close(decoded(made), eager)


def test_buckets_go_on_the_workers_too(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kvorum.backends.vllm.rank_graphs import StageGraphs

    monkeypatch.setattr(static_ticks, "AFTER", 0)
    monkeypatch.setattr(static_ticks, "KEEP", 2)
    with engine(toy) as made:
        blocks = [made.block() for _ in range(4)]
        for count in (1, 2, 1, 4, 1, 2, 1):
            made.forward([Row(View(block), ids=[1]) for block in blocks[:count]])
        held = [len(one._known) for one in gc.get_objects() if isinstance(one, StageGraphs)]
        counted = ticks(made)
        assert counted is not None
        assert counted.captured == 2
        assert held == [2]


def test_where_scratch_memory_grows_all_is_captured_anew(
    toy: Path, eager: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph remembers where vLLM's experts had their scratch memory; a longer tick may have it moved."""
    from kvorum.backends.vllm import rank_graphs

    places = iter([1] * 4 + [2] * 100)
    monkeypatch.setattr(static_ticks, "AFTER", 0)
    monkeypatch.setattr(rank_graphs, "scratch", lambda: next(places))
    with engine(toy) as made:
        assert rank_graphs.scratch() == 1
        close(decoded(made), eager)
        counted = ticks(made)
        assert counted is not None
        assert 0 < counted.captured < 8 - counted.replayed


def test_where_a_rank_cannot_capture_all_are_eager(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kvorum.backends.vllm import rank_graphs

    def refuse(run: Callable[[], object]) -> Callable[[], object]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(static_ticks, "AFTER", 0)
    monkeypatch.setattr(rank_graphs, "capturing", lambda device: refuse)
    with engine(toy) as made:
        a = made.block()
        made.forward([Row(View(a), ids=[1, 2])])
        with pytest.warns(UserWarning, match="runs eagerly: operation not permitted when stream is capturing$"):
            first = made.forward([Row(View(a), ids=[3])]).logits
        after = made.forward([Row(View(a), ids=[4])]).logits
        counted = ticks(made)
        assert counted is not None
        assert (counted.captured, counted.replayed) == (0, 0)
        b = made.block()
        made.forward([Row(View(b), ids=[1, 2])])
        for ours in (first, after):
            again = made.forward([Row(View(b), ids=[3 if ours is first else 4])]).logits
            assert torch.allclose(ours, again, atol=1e-5)
