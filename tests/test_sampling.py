"""Sampling: the filters against their definitions spelled out, and draws that are functions of (seed, stream, step).

Covers greedy, temperature, top-k, top-p, min-p and banned ids, alone and together, on vocabularies small and large; a
chi-square test of the draws; extremes. Not covered: how decode and programs choose stream and step.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvorum import Sampling
from kvorum.errors import BadRequest
from kvorum.sampling.reference import pick
from kvorum.sampling.sampling import Draw


def distribution(logits: list[float], s: Sampling) -> dict[int, float]:
    """What the docstring of Sampling says, one sentence after the other, in plain Python."""
    left = {token: value for token, value in enumerate(logits) if token not in s.banned}
    top = max(left.values())
    weight = {token: math.exp((value - top) / s.temperature) for token, value in left.items()}
    ranked = sorted(weight, key=lambda token: -weight[token])
    if s.top_k:
        ranked = ranked[: s.top_k]
    if s.top_p < 1:
        total, reached, kept = sum(weight[token] for token in ranked), 0.0, []
        for token in ranked:
            kept.append(token)
            reached += weight[token] / total
            if reached >= s.top_p:
                break
        ranked = kept
    total = sum(weight[token] for token in ranked)
    best = max(weight[token] for token in ranked)
    ranked = [token for token in ranked if weight[token] >= s.min_p * best]
    total = sum(weight[token] for token in ranked)
    return {token: weight[token] / total for token in ranked}


def draws(logits: torch.Tensor, s: Sampling, count: int, seed: int = 0) -> list[int]:
    return [pick(logits, Draw(s, seed=seed, stream=0, step=step)).id for step in range(count)]


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from((0.3, 0.7, 1.0, 2.5)),
    top_k=st.sampled_from((0, 1, 2, 5, 50)),
    top_p=st.sampled_from((1.0, 0.95, 0.6, 0.2)),
    min_p=st.sampled_from((0.0, 0.05, 0.4, 1.0)),
    banned=st.sampled_from(((), (0,), (3, 4, 5))),
)


@settings(max_examples=150)
@given(s=samplings, size=st.sampled_from((8, 30, 1000)), seed=st.integers(0, 1000))
def test_only_what_the_filters_leave_is_drawn_and_the_ends_of_the_unit_interval_reach_it(
    s: Sampling, size: int, seed: int
) -> None:
    logits = 2 * torch.randn(size, generator=torch.Generator().manual_seed(seed))
    allowed = distribution(logits.tolist(), s)
    got = draws(logits, s, 40, seed)
    assert set(got) <= set(allowed)
    likeliest = max(allowed, key=lambda token: allowed[token])
    if len(allowed) == 1:
        assert set(got) == {likeliest}


@pytest.mark.parametrize(
    "s",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.5),
        Sampling(temperature=1.5, top_k=6),
        Sampling(temperature=1.0, top_p=0.8),
        Sampling(temperature=1.0, min_p=0.2),
        Sampling(temperature=1.2, top_k=9, top_p=0.9, min_p=0.1, banned=(2, 7)),
    ],
    ids=["plain", "cold", "top-k", "top-p", "min-p", "all"],
)
def test_draws_follow_the_distribution(s: Sampling) -> None:
    """Chi-square over fixed draws: each sum lies below the value that chance passes once in 10,000 times."""
    logits = torch.randn(12, generator=torch.Generator().manual_seed(5))
    expected = distribution(logits.tolist(), s)
    count = 3000
    got = draws(logits, s, count, seed=11)
    assert set(got) == set(expected)
    chi = sum((got.count(token) - count * p) ** 2 / (count * p) for token, p in expected.items())
    freedom = len(expected) - 1
    # Wilson and Hilferty's approximation of the 99.99 % point
    limit = freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi < limit


def test_a_nucleus_wider_than_the_first_look() -> None:
    """Nearly flat over 5,000 tokens: top-p 0.5 must keep about half of them."""
    logits = torch.linspace(0, 0.01, 5000)
    kept = distribution(logits.tolist(), Sampling(temperature=1.0, top_p=0.5))
    assert 2400 < len(kept) < 2600
    got = draws(logits, Sampling(temperature=1.0, top_p=0.5), 2000)
    assert set(got) <= set(kept)
    assert min(got) < min(kept) + 50


def test_draws_are_functions_of_seed_stream_and_step() -> None:
    logits = torch.zeros(1000)
    s = Sampling(temperature=1.0)
    first = pick(logits, Draw(s, seed=1, stream=2, step=3))
    torch.manual_seed(99)
    assert pick(logits, Draw(s, seed=1, stream=2, step=3)) == first
    others = [(2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1)]
    assert len({pick(logits, Draw(s, seed=a, stream=b, step=c)).id for a, b, c in others} | {first.id}) == 5
    for seed in (-1, 2**70):
        pick(logits, Draw(s, seed=seed, stream=0, step=0))


def test_streams_do_not_repeat_each_other() -> None:
    """Neighbouring streams and steps agree no more often than chance: 1 in 50."""
    logits, s = torch.zeros(50), Sampling(temperature=1.0)
    table = [[pick(logits, Draw(s, seed=4, stream=a, step=b)).id for b in range(400)] for a in range(3)]
    for left, right in ((table[0], table[1]), (table[1], table[2]), (table[0][1:], table[1]), (table[0][1:], table[0])):
        assert sum(a == b for a, b in zip(left, right, strict=False)) < 25


def test_greedy() -> None:
    logits = torch.tensor([0.0, 3.0, 2.0, 3.0, -1.0])
    assert pick(logits, Draw(Sampling(), seed=0, stream=0, step=0)).id == 1
    assert pick(logits, Draw(Sampling(banned=[1]), seed=0, stream=0, step=0)).id == 3
    assert pick(logits, Draw(Sampling(banned=[1, 3]), seed=9, stream=9, step=9)).id == 2


def test_the_logprob_is_the_models() -> None:
    """Natural logarithm under the model itself: no temperature, no filter, no ban."""
    logits = torch.randn(20, generator=torch.Generator().manual_seed(2))
    for s in (Sampling(), Sampling(temperature=3.0, top_k=4), Sampling(banned=[int(logits.argmax())])):
        choice = pick(logits, Draw(s, seed=3, stream=0, step=0))
        assert choice.logprob == pytest.approx(float(logits.log_softmax(0)[choice.id]), abs=1e-5)


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-45, 5e-324])
def test_any_small_temperature_is_greedy(temperature: float) -> None:
    logits = torch.tensor([30.0, 31.0, -50.0, 29.0])
    for s in (Sampling(temperature), Sampling(temperature, top_k=2), Sampling(temperature, top_p=0.9)):
        assert set(draws(logits, s, 5)) == {1}


def test_the_logits_are_left_as_they_are() -> None:
    logits = torch.randn(10)
    before = logits.clone()
    pick(logits, Draw(Sampling(temperature=0.5, banned=(1, 2)), seed=0, stream=0, step=0))
    assert torch.equal(logits, before)


def test_nothing_left_to_pick_is_an_error() -> None:
    for logits, s in (
        (torch.zeros(3), Sampling(banned=(0, 1, 2))),
        (torch.full((3,), float("nan")), Sampling()),
        (torch.full((3,), float("-inf")), Sampling(temperature=1.0)),
    ):
        with pytest.raises(BadRequest, match="No token can be picked"):
            pick(logits, Draw(s, seed=0, stream=0, step=0))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": -0.1},
        {"min_p": 1.1},
    ],
)
def test_values_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(BadRequest, match=next(iter(options))):
        Sampling(**options)  # type: ignore[arg-type]
