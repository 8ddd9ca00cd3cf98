"""Rotary: the rotation is a rotation, composes, keeps dtype, and touches the rotated features alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvorum.attention.rotary import Rotary, Style

FREQUENCIES = 10000.0 ** -(torch.arange(4) / 4)


def _heads(dtype: torch.dtype = torch.float64, width: int = 12) -> Tensor:
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_pairs_turn_as_complex_numbers(style: Style, start: int) -> None:
    x, positions = _heads(), torch.tensor([0, 1, -3, 40, 2000])
    out = Rotary(style, start, FREQUENCIES).rotate(x, positions)
    for pair in range(4):
        a, b = (pair, pair + 4) if style == "half" else (2 * pair, 2 * pair + 1)
        turn = torch.exp(1j * positions.double() * FREQUENCIES[pair].double())
        wanted = torch.complex(x[..., start + a], x[..., start + b]) * turn
        got = torch.complex(out[..., start + a], out[..., start + b])
        assert torch.allclose(got, wanted, rtol=0, atol=1e-12)
    rest = torch.ones(12, dtype=torch.bool)
    rest[start : start + 8] = False
    assert torch.equal(out[..., rest], x[..., rest])


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_composes_and_inverts(style: Style) -> None:
    rotary = Rotary(style, 0, FREQUENCIES)
    x, a, b = _heads(), torch.arange(5) * 7, torch.tensor([3, -2, 100, 0, 9])
    assert torch.allclose(rotary.rotate(rotary.rotate(x, a), b), rotary.rotate(x, a + b), atol=1e-12)
    assert torch.allclose(rotary.rotate(rotary.rotate(x, a), -a), x, atol=1e-12)
    assert torch.equal(rotary.rotate(x, torch.zeros(5, dtype=torch.long)), x)


def test_scores_depend_on_the_distance_alone() -> None:
    rotary, q, k = Rotary("half", 0, FREQUENCIES), _heads(), _heads().flip(1)
    near = (rotary.rotate(q, torch.full((5,), 9)) * rotary.rotate(k, torch.arange(5))).sum(-1)
    far = (rotary.rotate(q, torch.full((5,), 5009)) * rotary.rotate(k, torch.arange(5) + 5000)).sum(-1)
    assert torch.allclose(near, far, atol=1e-11)
    assert not torch.allclose(near, (q * k).sum(-1), atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtype_is_kept_and_angles_are_wide(dtype: torch.dtype) -> None:
    rotary, positions = Rotary("half", 0, FREQUENCIES.to(torch.bfloat16)), torch.full((5,), 5001)
    x = _heads(dtype)
    out = rotary.rotate(x, positions)
    assert out.dtype == dtype
    wanted = rotary.rotate(x.double(), positions)
    assert torch.allclose(out.double(), wanted, rtol=torch.finfo(dtype).eps, atol=2e-3)


def test_none_rotates_nothing() -> None:
    x = _heads()
    assert Rotary.none().rotate(x, torch.arange(5)) is x
    assert Rotary.none().rotated == 0


def test_input_is_left_as_it_is() -> None:
    x = _heads()
    before = x.clone()
    Rotary("interleaved", 4, FREQUENCIES).rotate(x, torch.arange(5))
    assert torch.equal(x, before)
