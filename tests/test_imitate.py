"""Control blocks: the right shape, nothing of the original, and arithmetic that a dense computation repeats."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

import local_backend
from families import build, random_ids
from kvorum import Engine, Row, View
from kvorum.errors import BadRequest, ForeignBlock, OutOfPages, SealedBlock, UnknownName
from kvorum.kv import LATENT, Block
from kvorum.models.transformers_cache import cache_argument


@cache
def _engine(name: str = "llama", kv_tokens: int = 1024) -> Engine:
    return Engine(build(name, torch.float64), kv_tokens=kv_tokens, page_size=4)


def _filled(engine: Engine, count: int, seed: int = 0) -> Block:
    block = engine.block("real")
    engine.forward([Row(View(block), ids=random_ids(count, seed).tolist())])
    return block


def _read(engine: Engine, *blocks: Block) -> torch.Tensor:
    own = engine.block()
    return engine.forward([Row(View(*blocks, own), ids=[5, 9, 4])]).logits[0]


def test_zeroed_is_zero_and_takes_its_share_of_the_softmax() -> None:
    engine = _engine("llama")
    real = _filled(engine, 9)
    zero = engine.imitate(real, "zeroed")
    assert zero.ids == [LATENT] * 9
    assert zero.sealed
    slots = zero.table.slot_tensor(0, 9)
    for keys, values in zip(local_backend.cache(engine).keys, local_backend.cache(engine).values, strict=True):
        assert not keys[:, slots].any()
        assert not values[:, slots].any()
    assert not torch.allclose(_read(engine, zero), _read(engine))
    assert not torch.allclose(_read(engine, zero), _read(engine, real))


def test_zeroed_block_equals_a_dense_attention_with_zero_keys() -> None:
    """Independent: transformers' own forward over a cache that holds zeros."""
    engine = _engine()
    model = engine.model
    assert isinstance(model, PreTrainedModel)
    zero = engine.imitate(_filled(engine, 6), "zeroed")
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(
        zip(local_backend.cache(engine).keys, local_backend.cache(engine).values, strict=True)
    ):
        cache.update(
            torch.zeros(1, len(keys), 6, keys.shape[-1], dtype=torch.float64),
            torch.zeros(1, len(values), 6, values.shape[-1], dtype=torch.float64),
            layer,
        )
    with torch.no_grad():
        expected = model(torch.tensor([[5, 9, 4]]), **{cache_argument(model): cache}).logits[0, -1]
    assert torch.allclose(_read(engine, zero), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "deepseek-v3"])
def test_random_has_the_moments_and_not_the_content(name: str) -> None:
    engine = _engine(name)
    count = 400
    real = _filled(engine, count)
    made = engine.imitate(real, "random", seed=3)
    here, there = made.table.slot_tensor(0, count), real.table.slot_tensor(0, count)
    at = torch.arange(count)
    for layer, rotary in enumerate(local_backend.backend(engine).rotaries):
        for tensors, turn in ((local_backend.cache(engine).values, False), (local_backend.cache(engine).keys, True)):
            a, b = tensors[layer][:, here], tensors[layer][:, there]
            if turn:
                a, b = rotary.rotate(a, -at), rotary.rotate(b, -at)
            spread = b.std(1)
            assert ((a.mean(1) - b.mean(1)).abs() < 5 * spread / count**0.5 + 1e-9).all()
            assert torch.allclose(a.std(1), spread, rtol=0.25, atol=1e-9)
            centred = (a - a.mean(1, keepdim=True)) * (b - b.mean(1, keepdim=True))
            assert (centred.mean(1).abs() < 6 * spread**2 / count**0.5 + 1e-9).all()  # uncorrelated, token by token


def test_random_repeats_with_its_seed() -> None:
    engine = _engine()
    real = _filled(engine, 11)
    reads = [_read(engine, engine.imitate(real, "random", seed=seed)) for seed in (1, 1, 2)]
    assert torch.equal(reads[0], reads[1])
    assert not torch.allclose(reads[0], reads[2])


def test_refusals_write_nothing_and_the_ledger_counts() -> None:
    engine = _engine(kv_tokens=24)
    real = _filled(engine, 9)
    held = _filled(engine, 5)
    free = engine.pool.free
    with pytest.raises(UnknownName, match="zeroed, random"):
        engine.imitate(real, "ones")
    with pytest.raises(OutOfPages):
        engine.imitate(real, "zeroed")
    assert engine.pool.free == free
    del held
    one = _filled(engine, 1)
    with pytest.raises(BadRequest, match="at least 2"):
        engine.imitate(one, "random")
    with pytest.raises(ForeignBlock):
        _engine().imitate(real, "zeroed")
    before = engine.ledger.kv_written
    made = engine.imitate(one, "zeroed")
    assert engine.ledger.kv_written - before == engine.pool.bytes_per_token
    with pytest.raises(SealedBlock):
        engine.forward([Row(View(made), ids=[1])])
