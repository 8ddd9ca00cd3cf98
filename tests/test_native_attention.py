"""The native attention kernels against their plain-torch twin, through whole models of every family.

Covers shared, joined (many short spans), gathered (fragmented pages) and masked segments, several rows of several
tokens, gaps, splices, windows, sinks, soft caps, every rotation, caches in float32, float16 and int8, and each path of
instructions that this processor has. Does not cover speed. Where ``kvorum-native`` cannot be built there is nothing to
compare and only the fallback is tested.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

import families
import local_backend
from kvorum import Engine, Gap, Row, Span, View
from kvorum.errors import BadRequest
from kvorum.kv.int8_rows import encode
from kvorum.native_extension import kernels

KERNELS = kernels()
FAMILIES = (
    *("llama", "llama-yarn", "mistral", "qwen2-sliding", "qwen3", "phi", "gpt-neox", "glm4", "cohere2", "gemma2"),
    *("gemma3", "gpt-oss", "deepseek-v2", "deepseek-v3", "smollm3", "stablelm"),
)


def scripted(engine: Engine, seed: int) -> list[torch.Tensor]:
    """The logits of a few ticks of three writers whose views are edited in between; the same for every engine."""
    choose = random.Random(seed)
    blocks = [engine.block(name) for name in "abc"]
    views = [View(block) for block in blocks]
    logits: list[torch.Tensor] = []
    for step in range(6):
        lengths = [choose.choice((1, 1, 2, 37)) for _ in views]
        rows = [
            Row(view, ids=[choose.randrange(engine.shape.vocab) for _ in range(n)])
            for view, n in zip(views, lengths, strict=True)
        ]
        out = engine.forward(rows, every=True)
        assert out.every is not None
        logits += out.every
        if step == 1:
            views = [View(*(b for b in blocks if b is not v.own), v.own or blocks[0]) for v in views]
        elif step == 2:
            history = engine.block()
            engine.compact([blocks[0]], history)
            pairs = [Span(history, i, min(i + 2, len(history))) for i in range(0, len(history), 2)]
            views[1] = View(*pairs, Gap(3), blocks[1])
        elif step == 3:
            views[2] = views[2].splice(0, min(3, len(views[2]) - 1))
        elif step == 4:
            views[0] = views[0].gap(1, 3)
    return logits


def worst(ours: list[torch.Tensor], twin: list[torch.Tensor]) -> float:
    """The largest difference in units of the largest logit."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, twin, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_twin_on_every_path(family: str) -> None:
    model = families.build(family, dtype=torch.float32)
    twin = scripted(Engine(model, kv_tokens=4096, page_size=4, attention="reference"), 1)
    if KERNELS is None:
        with pytest.raises(BadRequest, match="kvorum-native"):
            Engine(model, kv_tokens=64, attention="native")
        return
    before = KERNELS.path()
    try:
        for path in KERNELS.paths():
            KERNELS.use(path)
            ours = scripted(Engine(model, kv_tokens=4096, page_size=4, attention="native"), 1)
            assert worst(ours, twin) < 5e-6, path
    finally:
        KERNELS.use(before)


@pytest.mark.parametrize(("kv_dtype", "loss", "beside"), [("float16", 5e-2, 5e-3), ("int8", 0.5, 5e-2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrow_cache_equals_its_twin(family: str, kv_dtype: str, loss: float, beside: float) -> None:
    """Sums in another order may round a key to the number beside; that much may differ."""
    model = families.build(family, dtype=torch.float32)
    about: dict[str, Any] = {"kv_tokens": 4096, "page_size": 4}
    wide = scripted(Engine(model, attention="reference", **about), 1)
    twin = scripted(Engine(model, attention="reference", kv_dtype=kv_dtype, **about), 1)
    assert 0 < worst(twin, wide) < loss
    if KERNELS is None:
        return
    before = KERNELS.path()
    try:
        for path in KERNELS.paths():
            KERNELS.use(path)
            ours = scripted(Engine(model, attention="native", kv_dtype=kv_dtype, **about), 1)
            assert worst(ours, twin) < beside, path
    finally:
        KERNELS.use(before)


@pytest.mark.skipif(KERNELS is None, reason="kvorum-native is not installed")
@pytest.mark.parametrize("factor", [1.0, 1e-6, 3e-8, 1e5])
def test_what_is_stored_is_the_nearest(factor: float) -> None:
    """As torch rounds, normal, subnormal and too large; the first layer's are the same whatever was attended to."""
    model = families.build("llama", dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight *= factor
    ids = families.random_ids(40, 5).flatten().tolist()
    assert KERNELS is not None
    before = KERNELS.path()
    try:
        for path in KERNELS.paths():
            KERNELS.use(path)
            stored = []
            for dtype in ("float32", "float16", "int8"):
                engine = Engine(model, kv_tokens=64, attention="native", kv_dtype=dtype)
                block = engine.block()
                engine.forward([Row(View(block), ids=ids)])
                slots = block.table.slot_tensor(0, len(ids))
                stored.append(
                    [
                        cache[0][:, slots]
                        for cache in (local_backend.cache(engine).keys, local_backend.cache(engine).values)
                    ]
                )
            for exact, half, row in zip(*stored, strict=True):
                assert torch.equal(exact.half(), half), path
                assert torch.equal(encode(exact), row), path
    finally:
        KERNELS.use(before)


def test_long_contexts_in_parts_and_threads() -> None:
    """Enough keys that a tick is split between threads, and a prefill that takes several tiles."""
    model = families.build("llama", dtype=torch.float32)
    found = []
    for attention in ("reference", "auto"):
        engine = Engine(model, kv_tokens=8192, prefill_chunk=300, attention=attention)
        prompt, own, other = engine.block(), engine.block(), engine.block()
        ids = families.random_ids(3000, 5).flatten().tolist()
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            first = engine.forward([Row(View(prompt), ids=ids)])
            both = engine.forward([Row(View(prompt, other, own), ids=ids[:2]), Row(View(prompt, own, other), ids=[3])])
        finally:
            torch.set_num_threads(threads)
        found.append([first.logits, both.logits])
    assert worst(found[1], found[0]) < 5e-6


def test_other_engines_fall_back() -> None:
    model = families.build("llama", dtype=torch.float64)
    assert Engine(model, kv_tokens=64).about()["dtype"] == "float64"
    with pytest.raises(BadRequest, match="float32"):
        Engine(model, kv_tokens=64, attention="native")
    with pytest.raises(BadRequest, match="auto, triton, native, reference"):
        Engine(model, kv_tokens=64, attention="fast")
    with pytest.raises(BadRequest, match="cache in float32, float16 or int8"):
        Engine(families.build("llama", dtype=torch.float32), kv_tokens=64, attention="native", kv_dtype="bfloat16")
    with pytest.raises(BadRequest, match="no kv_dtype 'int4'"):
        Engine(model, kv_tokens=64, kv_dtype="int4")
