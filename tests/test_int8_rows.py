"""A cache in int8: what its rows hold, what is copied of them, and what they take.

Covers rounding over the range of float32, zeros, tiny, infinite and missing numbers, head sizes that fill no group,
turned and unturned copies, imitations, and bytes. The kernels' side is in ``test_native_attention.py``.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvorum.attention.rotary import Rotary
from kvorum.kv import CacheConfig, CacheShape, KVCache
from kvorum.kv.derived_blocks import imitate
from kvorum.kv.int8_rows import GROUP, decode, encode, row_bytes

LAYERS = (CacheShape(2, 40, 6), CacheShape(2, 40, 6))
TURNS = [Rotary("half", 0, torch.linspace(1, 0.1, 10)), Rotary.none()]


@given(st.integers(1, 80), st.integers(0, 2**31), st.sampled_from([1.0, 1e-35, 1e-20, 1e30, 3e38]))
def test_each_number_is_the_nearest_of_its_group(dim: int, seed: int, size: float) -> None:
    x = (torch.rand(3, dim, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * size
    rows = encode(x)
    assert rows.dtype == torch.int8
    assert rows.shape == (3, row_bytes(dim))
    back = decode(rows, dim)
    assert back.shape == x.shape
    for start in range(0, dim, GROUP):
        most = x[:, start : start + GROUP].abs().amax(-1, keepdim=True).double()
        off = (back - x)[:, start : start + GROUP].abs().double()
        kept = most >= 2.0**-100
        assert (off <= torch.where(kept, most / 254 * 1.0001, most)).all()
    assert torch.equal(encode(back)[:, 4 * -(-dim // GROUP) :], rows[:, 4 * -(-dim // GROUP) :])


def test_zeros_and_what_is_no_number() -> None:
    assert not decode(encode(torch.zeros(2, 33)), 33).any()
    x = torch.ones(1, 2 * GROUP)
    for wrong in (float("nan"), float("inf"), -float("inf")):
        x[0, 3] = wrong
        back = decode(encode(x), 2 * GROUP)
        assert not back[0, :GROUP].isfinite().any()
        assert torch.allclose(back[0, GROUP:], torch.ones(GROUP))


def filled(dtype: torch.dtype) -> KVCache:
    cache, made = KVCache(CacheConfig(LAYERS, 32, dtype=dtype)), torch.Generator().manual_seed(1)
    for layer, shape in enumerate(LAYERS):
        keys, values = (torch.randn(2, 9, dim, generator=made) for dim in (shape.k_dim, shape.v_dim))
        cache.write(layer, torch.arange(9), keys, values)
    return cache


def test_a_copy_that_is_not_turned_is_the_same_to_the_bit_and_a_turned_one_the_nearest() -> None:
    cache, source, target = filled(torch.int8), torch.arange(9), torch.arange(20, 29)
    shift = torch.tensor([0, 0, 0, 3, 3, -7, 100, 100, 100])
    cache.carry(source, shift, target, TURNS)
    for layer in range(2):
        assert torch.equal(cache.values[layer][:, target], cache.values[layer][:, source])
    assert torch.equal(cache.keys[1][:, target], cache.keys[1][:, source])
    assert torch.equal(cache.keys[0][:, 20:23], cache.keys[0][:, :3])
    turned = TURNS[0].rotate(cache.numbers(0, source)[0], shift)
    assert torch.equal(cache.keys[0][:, 23:29], encode(turned)[:, 3:])


def test_imitations_have_the_moments_of_what_is_stored() -> None:
    cache, source, target = filled(torch.int8), torch.arange(9), torch.arange(20, 29)
    imitate(cache, TURNS, "zeroed", 0, source, target)
    assert not any(part.any() for part in cache.numbers(0, target))
    imitate(cache, TURNS, "random", 0, source, target)
    wide = filled(torch.float32)
    imitate(wide, TURNS, "random", 0, source, target)
    for narrow, exact in zip(cache.numbers(1, target), wide.numbers(1, target), strict=True):
        assert 0 < float((narrow - exact).abs().max()) < 0.1


def test_32k_tokens_of_a_model_of_a_billion_parameters_take_half_a_gigabyte() -> None:
    qwen = (CacheShape(2, 128, 128),) * 28
    sizes = {dtype: CacheConfig(qwen, 1, dtype=dtype).bytes_per_token for dtype in (torch.float32, torch.int8)}
    assert sizes[torch.int8] * 32768 < 0.53e9
    assert 3.5 < sizes[torch.float32] / sizes[torch.int8] < 4
