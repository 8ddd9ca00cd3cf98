"""The seam, by its second implementation: the fake backend behind the same engine.

Covers: what a view shows decides the logits, in random views against a plain sum over the visible tokens; chunks,
company and page sizes change nothing; forks, moves and saved blocks carry what was written; runs, replays and decode
work on it; the protocol is met by both backends. Does not cover taps, which it has none of.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toy_engine
from kvorum import Budget, Engine, Row, Sampling, Span, View, programs
from kvorum.backends.backend import Backend
from kvorum.backends.fake import FakeBackend
from kvorum.backends.local.backend import LocalBackend
from kvorum.errors import BadRequest, UnsupportedModel

PRIME = 2_147_483_647


def plainly(shown: list[int], vocab: int) -> torch.Tensor:
    """Logits after ``shown``, written out one visible token after the other."""
    state = 1
    for at, token in enumerate(shown):
        term = ((token + 1) * 16_807 + (len(shown) - 1 - at) * 69_621) % PRIME
        state = (state + term * term) % PRIME
    state = state * 44_497 % PRIME
    return torch.tensor([state * ((word + 1) * 48_271 % PRIME) % PRIME / PRIME * 8 - 4 for word in range(vocab)])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_a_view_shows_decides(data: st.DataObject) -> None:
    engine = Engine(FakeBackend(23, kv_tokens=512, page_size=data.draw(st.sampled_from((1, 4, 16)))), prefill_chunk=7)
    ids = st.lists(st.integers(0, 22), min_size=1, max_size=20)
    a, b, c = (engine.block(name) for name in "abc")
    engine.forward([Row(View(a), ids=data.draw(ids))])
    cut = data.draw(st.integers(0, len(a)))
    for _ in range(data.draw(st.integers(1, 4))):
        new = [data.draw(ids)[:3], data.draw(ids)[:3]]
        views = [View(Span(a, cut), c, b), View(b, Span(a, 0, cut), c)]
        out = engine.forward([Row(view, ids=each) for view, each in zip(views, new, strict=True)])
        for view, line in zip(views, out.logits, strict=True):
            assert torch.allclose(line, plainly(view.ids, 23).double(), atol=1e-12)


def test_moves_and_saved_blocks_keep_what_was_written(tmp_path: Path) -> None:
    engine = Engine(FakeBackend(23, kv_tokens=256))
    a, moved, own = engine.block(), engine.block(), engine.block()
    engine.forward([Row(View(a), ids=[5, 6, 7])])
    engine.compact([Span(a, 1)], into=moved)
    loaded = engine.load_block(engine.save(moved, tmp_path / "moved.safetensors"))
    out = engine.forward([Row(View(loaded, own), ids=[9])])
    assert torch.allclose(out.logits[0], plainly([6, 7, 9], 23).double(), atol=1e-12)
    with pytest.raises(BadRequest, match="no attention to tap"):
        engine.check_tap()
    with pytest.raises(UnsupportedModel):
        assert engine.model


@pytest.mark.parametrize("program", ["solo", "vote", "hogwild", "network", "consensus", "roleplay", "tree"])
def test_programs_run_and_replay_without_a_model(program: str) -> None:
    tokenizer = toy_engine.tokenizer()
    ends = [tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) else []
    engine = Engine(FakeBackend(len(tokenizer), kv_tokens=8192, ends=ends), tokenizer)
    first = engine.run(programs.find(program), "What is 2+3?", budget=Budget(ticks=30), sampling=Sampling(1.0))
    again = engine.run(
        programs.find(program),
        "What is 2+3?",
        budget=Budget(ticks=30),
        sampling=Sampling(1.0),
        replay=first.trace.events,
    )
    assert [worker.ids for worker in first.workers] == [worker.ids for worker in again.workers]
    assert again.differences == []
    assert first.ledger.ticks > 0


def test_streams_share_ticks() -> None:
    engine = Engine(FakeBackend(23, kv_tokens=512))
    ticks: list[int] = []
    engine.scheduler.listener = lambda rows, tokens, seconds: ticks.append(rows)

    async def all_of_them() -> None:
        async def one(first: int) -> None:
            async for _ in engine.decode(View(engine.block()), ids=[first], max_tokens=10):
                pass

        await asyncio.gather(*(one(first) for first in range(5)))

    asyncio.run(all_of_them())
    assert ticks == [5] * 11, "every stream is in every tick"


def test_both_meet_the_protocol() -> None:
    backends: list[Backend] = [FakeBackend(), LocalBackend(toy_engine.model(), kv_tokens=64)]
    for backend in backends:
        assert backend.cache.slots >= 64
        assert Engine(backend).about()["page_size"] == 16
        backend.close()
