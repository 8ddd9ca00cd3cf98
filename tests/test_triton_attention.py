"""The Triton kernels against their plain-torch twin, in Triton's interpreter or, where there is one, on a GPU.

Covers head sizes 64 to 256, groups of 1 to 8, bfloat16, float16 and float32, caches in int8, ragged rows, windows,
sinks, soft caps, both pairings, partial rotation, joined, gathered and split segments, several passes, whole models of
every kind of rotation and in half precision (one of them, all in the slow lane), random view programs, which path an
engine takes, and that the kernels compile for real processors. Does not cover speed.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import families
from interpreter import DEVICE
from kvorum import Engine, Gap, Row, Span, View
from kvorum.attention import view_structure
from kvorum.attention.kernel import AttentionSetup, Softmax
from kvorum.attention.plan import Planner
from kvorum.attention.reference import ReferenceAttention
from kvorum.attention.registry import choose
from kvorum.attention.rotary import Rotary
from kvorum.attention.triton import attention as triton
from kvorum.attention.triton import tables as triton_tables
from kvorum.attention.triton.attention import TritonAttention
from kvorum.errors import BadRequest, MissingExtra
from kvorum.kv import Block, CacheConfig, CacheShape, KVCache, PagePool
from kvorum.kv.int8_rows import row_bytes
from view_programs import Maker, Played, play


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of a few tokens are shared between programs too."""
    monkeypatch.setattr(triton_tables, "SHORTEST", 16)


# -- one layer -----------------------------------------------------------------------------------------------------


def rotary(style: Any, features: int, start: int = 0) -> Rotary:
    """Turns ``features`` of the head from ``start`` on."""
    return Rotary(style, start, 10000.0 ** (-torch.arange(0, features, 2) / features).to(DEVICE))


class Layer:
    """A pool of one layer filled at random, and views of its blocks."""

    def __init__(self, shape: CacheShape, turn: Rotary, dtype: torch.dtype, seed: int, page_size: int = 4) -> None:
        self.cache = KVCache(CacheConfig((shape,), 512, page_size, dtype), DEVICE)
        self.pool = PagePool(self.cache.config)
        self.turn, self.shape, self.made = turn, shape, torch.Generator().manual_seed(seed)
        slots = self.cache.config.slots
        sizes = ((shape.kv_heads, slots, dim) for dim in (shape.k_dim, shape.v_dim))
        self.cache.write(0, torch.arange(slots).to(DEVICE), *(self.random(*size).to(DEVICE) for size in sizes))

    def random(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.made)

    def block(self, length: int) -> Block:
        block = Block(self.pool)
        block.append([0] * length)
        return block

    def setup(self, cache: KVCache, q_heads: int, dtype: torch.dtype | None = None) -> AttentionSetup:
        return AttentionSetup(cache, [self.turn], [q_heads], dtype or cache.dtype)

    def compare(
        self,
        views: list[View],
        counts: list[int],
        group: int,
        tolerance: float,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        """One tick by both paths, of queries in ``dtype``; the pool of each gets the same new tokens."""
        for view, count in zip(views, counts, strict=True):
            assert view.own is not None
            view.own.append([0] * count)
        plan = Planner().plan(views, counts)
        heads, dtype, int8 = self.shape.kv_heads, dtype or self.cache.dtype, self.cache.dtype == torch.int8
        sizes = [(heads * group, self.shape.k_dim), (heads, self.shape.k_dim), (heads, self.shape.v_dim)]
        # as a model has them: the heads of a token side by side
        query, keys, values = (self.random(plan.tokens, n, d).to(DEVICE, dtype).transpose(0, 1) for n, d in sizes)
        softmax = Softmax(2.0 * self.shape.k_dim**-0.5, **options)  # far from uniform
        setup = self.setup(self.cache, heads * group, dtype)
        wide = KVCache(replace(self.cache.config, dtype=torch.int8 if int8 else torch.float32), DEVICE)
        wide.keys[0].copy_(self.cache.keys[0])
        wide.values[0].copy_(self.cache.values[0])
        ours = TritonAttention(setup).bind(plan).attend(0, query, keys, values, softmax)
        stored = self.cache.keys[0].clone(), self.cache.values[0].clone()
        reference = ReferenceAttention(self.setup(wide, heads * group, torch.float32)).bind(plan)
        twin = reference.attend(0, query.float(), keys.float(), values.float(), softmax)
        assert ours.dtype == dtype
        assert float((ours.float() - twin).abs().max() / twin.abs().max()) < tolerance
        if int8:
            self.compare_int8(plan.slots, stored, wide, dtype)
            return
        rounding = {
            torch.bfloat16: 2**-7,  # the interpreter cuts off
            torch.float16: 2**-11,
            torch.float32: 1e-6,
        }[dtype]
        for cache, exact in zip(stored, (wide.keys[0], wide.values[0]), strict=True):
            assert torch.allclose(cache.float(), exact, rtol=rounding, atol=rounding)

    def compare_int8(self, slots: Tensor, stored: tuple[Tensor, Tensor], twin: KVCache, dtype: torch.dtype) -> None:
        """Float32 rows are those of the twin but for codes that rounding moves by one; all others are untouched."""
        old = torch.ones(stored[0].shape[1], dtype=torch.bool).index_fill_(0, slots, False)
        for cache, exact in zip(stored, (twin.keys[0], twin.values[0]), strict=True):
            assert torch.equal(cache[:, old], exact[:, old])
        assert torch.equal(stored[1], twin.values[0])
        skip = row_bytes(self.shape.k_dim) - -(-self.shape.k_dim // 4) * 4
        keys, exact = (x[:, slots, skip:].int() for x in (stored[0], twin.keys[0]))
        off = (keys - exact).abs()
        assert int(off.max()) <= (1 if dtype != torch.bfloat16 else 2)  # where the interpreter cuts a turned key off
        if dtype == torch.float32:
            assert float(off.float().mean()) < 1e-3


TOLERANCE = {torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize(("dim", "group"), [(64, 3), (96, 1), (128, 5), (256, 8), (64, 7), (128, 4)])
def test_head_sizes_and_groups(dim: int, group: int, dtype: torch.dtype) -> None:
    """A prompt shared by three ragged rows that see each other, one of them behind a gap."""
    layer = Layer(CacheShape(1 if dim > 128 else 2, dim, dim), rotary("half", dim), dtype, dim + group)
    prompt, a, b, c = layer.block(70), layer.block(5), layer.block(3), layer.block(9)
    views = [View(prompt, b, a), View(a, prompt, b), View(Gap(7), prompt, Span(a, 2, 4), c)]
    layer.compare(views, [1, 3, 2], group, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize(("dim", "v_dim", "group"), [(64, 64, 3), (40, 24, 2), (128, 16, 5)])
def test_caches_in_int8(dim: int, v_dim: int, group: int, dtype: torch.dtype) -> None:
    """The rows of ``test_head_sizes_and_groups``; heads that fill no group of a scale, and one that fills a part."""
    layer = Layer(CacheShape(2, dim, v_dim), rotary("half", dim), torch.int8, dim + group)
    prompt, a, b, c = layer.block(70), layer.block(5), layer.block(3), layer.block(9)
    views = [View(prompt, b, a), View(a, prompt, b), View(Gap(7), prompt, Span(a, 2, 4), c)]
    layer.compare(views, [1, 3, 2], group, max(1e-4, TOLERANCE[dtype]), dtype)


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's, as the row is read
def test_an_int8_row_of_what_is_no_number() -> None:
    """Zeros, numbers too small to store, infinite ones and NaN are the twin's, to the bit."""
    layer = Layer(CacheShape(1, 64, 64), Rotary.none(), torch.int8, 1)
    new = layer.block(6)
    plan = Planner().plan([View(new)], [6])
    keys = layer.random(1, 6, 64).to(DEVICE)
    keys[0, 0], keys[0, 1, :32], keys[0, 2, 3], keys[0, 3, 40] = 0.0, 1e-35, float("nan"), float("inf")
    keys[0, 4] = torch.arange(64) / 2  # halves go to the even neighbour
    twin = KVCache(layer.cache.config, DEVICE)
    twin.write(0, plan.slots.to(DEVICE), keys, keys)
    attention = TritonAttention(layer.setup(layer.cache, 1, torch.float32))
    attention.bind(plan).attend(0, keys, keys, keys, Softmax(1.0))
    for ours, exact in ((layer.cache.keys[0], twin.keys[0]), (layer.cache.values[0], twin.values[0])):
        scales = [x[:, plan.slots, :8].view(torch.float32) for x in (ours, exact)]
        assert torch.equal(*(x.nan_to_num(-1.0) for x in scales))
        assert torch.equal(ours[:, plan.slots, 8:], exact[:, plan.slots, 8:])


TURNS = {
    "half": rotary("half", 32),
    "half of it": rotary("half", 16),
    "last features": rotary("half", 16, start=16),
    "interleaved": rotary("interleaved", 32),
    "interleaved, last": rotary("interleaved", 12, start=20),
    "none": Rotary.none(),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("options", [{}, {"window": 9}, {"softcap": 3.0, "window": 40}, {"sinks": 3}], ids=str)
def test_rotations_windows_caps_and_sinks(turn: str, options: dict[str, Any]) -> None:
    """Joined spans of a block, in another order, and scattered pages; two of the rotations over int8."""
    int8 = turn in ("half", "interleaved, last") and "softcap" not in options
    layer = Layer(CacheShape(2, 32, 24), TURNS[turn], torch.int8 if int8 else torch.float32, 3)
    layer.pool.give(layer.pool.take(layer.pool.pages)[::2])  # no two free pages are adjacent
    steps, a, b = layer.block(40), layer.block(2), layer.block(37)
    pieces = [Span(steps, at, at + 4) for at in (12, 0, 4, 28)]
    views = [View(*pieces, b, a), View(b.seal(), *pieces, Span(layer.block(0)))]
    if "sinks" in options:
        options = {"sinks": torch.randn(6, generator=torch.Generator().manual_seed(1)).to(DEVICE) + 1}
    layer.compare(views, [2, 1], 3, 1e-4 if int8 else 2e-6, torch.float32, **options)


def test_a_long_prefill_goes_through_in_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "WORKSPACE", 40 * 6 * 32 * 4)
    layer = Layer(CacheShape(2, 32, 32), rotary("half", 32), torch.float32, 5)
    shared, a, b = layer.block(64), layer.block(1), layer.block(0)
    views, counts = [View(shared, a), View(shared, a, b)], [1, 37]
    layer.compare(views, counts, 3, 2e-6)
    attention = TritonAttention(layer.setup(layer.cache, 6))
    assert len(attention.tables(Planner().plan(views, counts))) > 2


# -- whole models --------------------------------------------------------------------------------------------------

FAMILIES = ("llama-yarn", "glm4", "gemma2", "gpt-oss", "gemma4-shared", "deepseek-v3", "smollm3")


def scripted(engine: Engine) -> list[Tensor]:
    """The logits of four ticks of three writers whose views are edited in between; the same for every engine."""
    choose_ = random.Random(2)
    blocks = [engine.block() for _ in range(3)]
    views = [View(block) for block in blocks]
    logits: list[Tensor] = []
    for step, counts in enumerate(((5, 1, 10), (1, 2, 1), (1, 1, 3), (1, 1, 1))):
        lines = [[choose_.randrange(engine.shape.vocab) for _ in range(n)] for n in counts]
        out = engine.forward([Row(view, ids=line) for view, line in zip(views, lines, strict=True)], every=True)
        assert out.every is not None
        logits += out.every
        if step == 0:
            views = [View(*(b for b in blocks if b is not view.own), view.own or blocks[0]) for view in views]
        elif step == 1:
            pairs = [Span(blocks[2], at, at + 2) for at in (4, 0, 8)]
            views[1] = View(*pairs, Gap(3), blocks[1])
        elif step == 2:
            views[2] = views[2].splice(0, 3)
            siblings = [Span(block, 0, len(block) - 1, at=4) for block in blocks[1:]]
            views[0] = View(*siblings, Span(blocks[0], 1))
    return logits


@pytest.mark.parametrize(
    "family", [name if at == 0 else pytest.param(name, marks=pytest.mark.slow) for at, name in enumerate(FAMILIES)]
)
def test_engines_of_every_rotation(family: str) -> None:
    model = families.build(family, device=DEVICE)
    twin = scripted(Engine(model, kv_tokens=256, page_size=4, attention="reference"))
    ours = scripted(Engine(model, kv_tokens=256, page_size=4, attention="triton"))
    for a, b in zip(ours, twin, strict=True):
        assert float((a - b).abs().max() / b.abs().max()) < 5e-6


@pytest.mark.parametrize(
    "dtype", [pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.bfloat16, torch.float16)], ids=str
)
def test_engines_in_half_precision(dtype: torch.dtype) -> None:
    """Against the reference in the same dtype; each rounds in its own places."""
    model = families.build("qwen3", dtype, device=DEVICE)
    twin, ours = (scripted(Engine(model, kv_tokens=256, attention=name)) for name in ("reference", "triton"))
    for a, b in zip(ours, twin, strict=True):
        assert a.dtype == dtype
        assert float((a - b).abs().max() / b.abs().max()) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("family", ["qwen3", *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES[2:5])])
def test_engines_with_a_cache_in_int8(family: str) -> None:
    """Among the slow ones: windows, sinks, two thetas, layers without keys of their own."""
    model = families.build(family, device=DEVICE)
    played = edited if family == "qwen3" else scripted
    engines = [Engine(model, kv_tokens=512, kv_dtype="int8", attention=name) for name in ("triton", "reference")]
    for a, b in zip(*(played(engine) for engine in engines), strict=True):
        assert float((a - b).abs().max() / b.abs().max()) < 2e-3


def edited(engine: Engine) -> list[Tensor]:
    """The logits of a row behind blocks that were compacted, imitated, saved and loaded."""
    old, new = engine.block(), engine.block()
    engine.forward([Row(View(old), ids=list(range(1, 18)))])
    engine.compact([Span(old, 9, 17), Span(old, 0, 5)], into=new)
    with tempfile.TemporaryDirectory() as folder:
        engine.save(new, Path(folder) / "block")
        loaded = engine.load_block(Path(folder) / "block")
        blocks = (new, loaded, engine.imitate(old, kind="random", seed=3))
        out = engine.forward([Row(View(block, engine.block()), ids=[5, 6]) for block in (*blocks, Span(old, 0, 9))])
    assert torch.equal(out.logits[0], out.logits[1])
    return list(out.logits)


@settings(max_examples=4)
@given(data=st.data(), page_size=st.sampled_from((1, 16)), join_below=st.sampled_from((0, 64)))
def test_random_view_programs(data: st.DataObject, page_size: int, join_below: int) -> None:
    """Made on the reference, which the oracle judges elsewhere, and played by the kernels."""
    model = families.build("mistral", device=DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_structure, "JOIN_BELOW", join_below)
        twin = Engine(model, kv_tokens=1024, page_size=page_size, attention="reference")
        maker = Maker(data.draw, twin, vocab=families.VOCAB, width=48)
        maker.make(data.draw(st.integers(1, 4)))
        ours: Played = play(Engine(model, kv_tokens=1024, page_size=page_size, attention="triton"), maker.script)
    for found, said in zip(ours.logits + ours.hidden, maker.played.logits + maker.played.hidden, strict=True):
        for a, b in zip(found, said, strict=True):
            assert float((a - b).abs().max()) < 2e-4 * max(1.0, float(b.abs().max()))


# -- which path ----------------------------------------------------------------------------------------------------


def test_who_gets_the_triton_path(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, shape = rotary("half", 16), CacheShape(1, 16, 16)

    def setup(device: str = DEVICE, dtype: torch.dtype = torch.float32) -> AttentionSetup:
        return AttentionSetup(KVCache(CacheConfig((shape,), 16, dtype=dtype), device), [turn], [2], torch.float32)

    assert isinstance(choose("triton", setup()), TritonAttention)
    assert not isinstance(choose("auto", setup("cpu")), TritonAttention)  # a CPU has its own
    assert isinstance(choose("auto", setup(dtype=torch.float64)), ReferenceAttention)
    with pytest.raises(BadRequest, match="not float64"):
        choose("triton", setup(dtype=torch.float64))
    with pytest.raises(BadRequest, match="auto, triton, native, reference"):
        choose("cuda", setup())
    on_gpu = setup("cpu")
    on_gpu.cache.device = torch.device("cuda")  # as the choice sees it
    with monkeypatch.context() as patch:
        patch.setattr(TritonAttention, "__init__", lambda *_: None)
        assert isinstance(choose("auto", on_gpu), TritonAttention)
    monkeypatch.setattr(triton, "kernels", lambda: None)
    assert isinstance(choose("auto", on_gpu), ReferenceAttention)
    with pytest.raises(MissingExtra, match="pip install triton"):
        choose("triton", on_gpu)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kvorum.attention.triton import kernels
from kvorum.attention.triton.attention import tiles

assert not kernels.INTERPRETED

def compiled(processor, kernel, kinds, constants, warps, **options):
    kinds = {**kinds, "scale": "fp32", "softcap": "fp32"}
    signature = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    options |= {"num_warps": warps, "num_stages": 2}
    made = triton.compile(source, target=GPUTarget("cuda", processor, 32), options=options)
    assert made.asm["cubin"]
    return made

half, whole, wide = "*bf16", "*i32", "*fp32"
kinds = {"query": half, "keys": half, "values": half, "new_keys": half, "new_values": half, "cos": wide, "sin": wide}
kinds |= {"items": whole, "queries": whole, "deltas": whole, "gathered": whole, "slots": whole, "ends": whole}
kinds |= {"parts": whole, "partial": wide, "lse": wide, "sinks": half, "out": half}
turn = {"START": 0, "ROTATED": 128, "INTERLEAVED": False}
heads = {"K_DIM": 128, "V_DIM": 128, "BLOCK_K": 128, "BLOCK_V": 128, **turn}
for processor, turned, int8 in ((80, False, False), (90, True, True)):
    held, scales, row = ("*i8", wide, 144) if int8 else (half, half, 128)
    kinds |= {"keys": held, "values": held, "key_scales": scales, "value_scales": scales}
    heads |= {"INT8": int8, "K_ROW": row, "V_ROW": row}
    sizes = tiles(16 * 5, 128, 128, 2)
    warps = sizes.pop("num_warps")
    more = {**heads, **sizes, "GROUP": 5, "CAPPED": turned, "TURNED": turned}
    assert compiled(processor, kernels.attend, kinds, more, warps).metadata.shared <= 99 << 10
    stored = compiled(processor, kernels.store, kinds, {**heads, "BLOCK_T": 16}, 4, enable_fp_fusion=False)
    assert "fma" not in stored.asm["ptx"], "int8 has the bits of the CPU, which rounds a product before it adds"
compiled(90, kernels.merge, kinds, {"V_DIM": 128, "SINKS": True, "BLOCK_P": 16, "BLOCK_H": 1, "BLOCK_V": 128}, 4)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="triton's compiler comes with its Linux wheels")
def test_the_kernels_compile_for_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The interpreter takes more than the compiler does. No GPU is needed to compile."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    subprocess.run([sys.executable, "-c", COMPILE], check=True, timeout=600)
