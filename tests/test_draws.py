"""Native draws of a whole tick against their plain twin, and what they must not depend on.

Covers every filter, bans, masks, ties, -inf, NaN, greedy, logprobs, the uniform numbers, vocabularies of any length,
each instruction set; rows without a token left beside others; a batch of runs. What the filters mean: test_sampling.py.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import toy_engine
from kvorum import Engine, Row, Sampling, View
from kvorum.engine.row import Cost
from kvorum.errors import BadRequest
from kvorum.native_extension import kernels
from kvorum.sampling import sampler as draws
from kvorum.sampling.reference import pick
from kvorum.sampling.sampler import draw, draw_all
from kvorum.sampling.sampling import Draw, Pick, packed

NATIVE = kernels()
pytestmark = pytest.mark.skipif(NATIVE is None, reason="needs kvorum-native")


@pytest.fixture(params=[] if NATIVE is None else NATIVE.paths())
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has."""
    assert NATIVE is not None
    before = NATIVE.path()
    NATIVE.use(request.param)
    yield str(request.param)
    NATIVE.use(before)


def twin(logits: torch.Tensor, one: Draw) -> Pick | BadRequest:
    try:
        return pick(logits, one)
    except BadRequest as error:
        return error


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from((0.0, 1e-30, 0.3, 0.6, 1.0, 2.5, 1e30)),
    top_k=st.sampled_from((0, 1, 2, 7, 60, 10**6)),
    top_p=st.sampled_from((1.0, 0.95, 0.6, 0.01)),
    min_p=st.sampled_from((0.0, 0.05, 0.4, 1.0)),
    banned=st.sampled_from(((), (0,), tuple(range(3, 40)), (10**6,))),
)


@st.composite
def ticks(of: st.DrawFn) -> tuple[torch.Tensor, list[Draw | None]]:
    """Logits of some rows, sharp, flat, tied or with holes, and what is asked of each."""
    vocab, rows = of(st.sampled_from((1, 5, 8, 33, 255, 256, 257, 1000, 5003))), of(st.integers(1, 6))
    random = torch.Generator().manual_seed(of(st.integers(0, 10**6)))
    logits = torch.randn(rows, vocab, generator=random) * of(st.sampled_from((0.0, 0.01, 1.0, 4.0, 30.0)))
    if of(st.booleans()):
        logits = logits.round()  # ties
    if of(st.booleans()):
        logits[torch.rand(rows, vocab, generator=random) < 0.3] = -math.inf
    if of(st.integers(0, 9)) == 0:
        logits[0, of(st.integers(0, vocab - 1))] = of(st.sampled_from((math.nan, math.inf)))
    asked: list[Draw | None] = []
    for _ in range(rows):
        allowed = packed(torch.rand(vocab, generator=random) < 0.5) if of(st.booleans()) else None
        seed, stream, step = (of(st.integers(-(2**65), 2**65)) for _ in range(3))
        made = Draw(of(samplings), seed, stream, step, of(st.booleans()), allowed)
        asked.append(made if of(st.integers(0, 7)) else None)
    return logits, asked


@pytest.mark.usefixtures("path")
@given(tick=ticks())
def test_a_tick_is_drawn_as_its_rows_are_by_the_twin(tick: tuple[torch.Tensor, list[Draw | None]]) -> None:
    """The same tokens: of these examples no point lies within rounding of a border. Chances to 1e-4."""
    logits, asked = tick
    before = logits.clone()
    for row, one, found in zip(logits, asked, draw_all(logits, asked), strict=True):
        if one is None:
            assert found is None
            continue
        expected = twin(row, one)
        if isinstance(expected, BadRequest):
            assert isinstance(found, BadRequest)
            assert str(found) == str(expected)
            continue
        assert isinstance(found, Pick)
        assert found.id == expected.id
        if one.telling and math.isfinite(float(row.max())):
            assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)
        elif not one.telling:
            assert math.isnan(found.logprob)
    assert torch.equal(logits.nan_to_num(7.0), before.nan_to_num(7.0))


def test_an_infinite_logit_that_is_banned_leaves_a_token_without_a_chance_to_tell() -> None:
    logits, one = torch.zeros(1, 40), Draw(Sampling(1.0, banned=(3,)), 1, 2, 3, telling=True)
    logits[0, 3] = math.inf
    (native,), plain = draw_all(logits, [one]), pick(logits[0], one)
    assert isinstance(native, Pick)
    assert native.id == plain.id != 3
    assert math.isnan(native.logprob)
    assert math.isnan(plain.logprob)


def test_points_are_numpys() -> None:
    from kvorum_native import uniform

    for seed, stream, step in ((0, 0, 0), (1, 2, 3), (2**64 - 1, 2**63, 2**64 - 1), (12345, 7, 10**12)):
        key, counter = np.array([seed, stream], np.uint64), np.array([step, 0, 0, 0], np.uint64)
        own = np.random.Generator(np.random.Philox(key=key, counter=counter)).random()
        assert uniform(seed, stream, step) == own


def test_a_row_feels_neither_its_neighbours_nor_the_threads() -> None:
    """To the last bit, on a real vocabulary: the row alone, among others, on one thread and on several."""
    logits = 3 * torch.randn(12, 49152, generator=torch.Generator().manual_seed(1))
    kinds = (Sampling(1.0), Sampling(0.6, top_p=0.95, banned=range(500)), Sampling(), Sampling(1.3, min_p=0.01))
    asked = [Draw(kinds[at % 4], 5, at, 9) for at in range(12)]
    alone = [draw(row, one) for row, one in zip(logits, asked, strict=True)]
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        assert draw_all(logits, asked) == alone
        assert draw_all(logits.flip(0), asked[::-1]) == alone[::-1]
    rows = torch.stack([logits, logits], 1).flatten(0, 1)[::2]  # rows that lie apart
    assert draw_all(rows, asked) == alone


def test_draws_spread_as_their_chances_do() -> None:
    """A row of 4 tokens 4,000 times: each comes as often as it should, within four standard deviations."""
    chances = torch.tensor([0.1, 0.2, 0.3, 0.4])
    logits = chances.log().expand(4000, 4).contiguous()
    found = draw_all(logits, [Draw(Sampling(1.0), 3, 0, at) for at in range(4000)])
    for token, chance in enumerate(chances.tolist()):
        count = sum(isinstance(each, Pick) and each.id == token for each in found)
        assert abs(count - 4000 * chance) < 4 * math.sqrt(4000 * chance * (1 - chance))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_logits_are_drawn_by_the_twin(dtype: torch.dtype) -> None:
    logits, one = torch.randn(50).to(dtype), Draw(Sampling(1.0), 1, 2, 3)
    assert draw(logits, one) == twin(logits, one)


def test_without_the_kernels_the_twin_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, one = torch.randn(3, 50), Draw(Sampling(0.7, top_k=9), 1, 2, 3)
    monkeypatch.setattr(draws, "_native", lambda: None)
    assert draw_all(logits, [one, None, one]) == [twin(logits[0], one), None, twin(logits[2], one)]


@pytest.mark.forward
def test_a_tick_draws_for_all_its_callers() -> None:
    """Two callers share a tick; one has banned every token and is told so, the other has its own."""
    engine = toy_engine.engine(torch.float32)
    nothing, some = Sampling(1.0, banned=range(engine.shape.vocab)), Sampling(1.0)

    async def ask(engine: Engine, sampling: Sampling) -> tuple[Pick, Pick]:
        row = Row(View(engine.block()), ids=[1, 2, 3])
        reply = await engine.scheduler.submit([row], [Cost(0)], draws=[Draw(sampling, 4, 0, 3)])
        return reply.pick(0), draw(reply.output.logits[0], Draw(sampling, 4, 0, 3))

    async def both() -> list[tuple[Pick, Pick] | BaseException]:
        return list(await asyncio.gather(*(ask(engine, each) for each in (nothing, some)), return_exceptions=True))

    refused, found = asyncio.run(both())
    assert engine.ledger.ticks == 1
    assert isinstance(refused, BadRequest)
    assert isinstance(found, tuple)
    assert found[0] == found[1]
