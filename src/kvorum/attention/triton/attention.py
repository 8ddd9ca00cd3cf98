"""Attention over a plan by the Triton kernels: bfloat16, float16 and float32 on a GPU, three launches a layer.

The cache is of the same dtype, or in int8.

The twin is ``reference.attend``, behind the same ``attend`` of a tick. Covers what the reference covers: shared and
joined segments, windows, sinks, soft caps, every rotation. Without a GPU the same code runs in Triton's interpreter,
slowly, where ``TRITON_INTERPRET=1`` was set before the first import: for tests. Not measured on a GPU.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from kvorum.attention.kernel import AttentionKernel, AttentionSetup, BoundPlan, Softmax, StaticPlan
from kvorum.attention.plan import Plan
from kvorum.attention.rotary import Rotary
from kvorum.attention.tap import Tap
from kvorum.attention.triton.device_tables import Pass
from kvorum.attention.triton.tables import Cuts, StaticKey, Tables, power, static_key
from kvorum.errors import BadRequest, KvorumError, MissingExtra
from kvorum.kv import KVCache
from kvorum.kv.int8_rows import GROUP

WORKSPACE = 256 << 20
"""Bytes that a pass's partial results may take; a longer prefill goes through in several passes of its tokens."""

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_STORED = 16  # tokens that one program stores
_MERGED = 16  # partial results that are weighed at once, times heads


@functools.cache
def kernels() -> Any:
    """The module ``triton.kernels``, or None where triton is not installed."""
    try:
        importlib.import_module("triton")
    except ImportError:
        return None
    return importlib.import_module("kvorum.attention.triton.kernels")


class Layer:
    """What the kernels need to know of a layer: its part of the cache, its heads, its rotation and their sizes."""

    def __init__(self, cache: KVCache, at: int, rotary: Rotary, q_heads: int) -> None:
        self.keys, self.values, self.rotary = cache.keys[at], cache.values[at], rotary
        self.kv_heads, k_dim, self.v_dim = cache.layers[at]
        self.q_heads, self.group = q_heads, q_heads // self.kv_heads
        int8 = cache.dtype == torch.int8
        self.scales = [x.view(torch.float32) if int8 else x for x in (self.keys, self.values)]
        least = max(16, GROUP) if int8 else 16
        self.block_k, self.block_v = max(least, power(k_dim)), max(least, power(self.v_dim))
        self.constants: dict[str, int] = {
            "K_DIM": k_dim,
            "V_DIM": self.v_dim,
            "START": rotary.start if rotary.rotated else 0,
            "ROTATED": rotary.rotated,
            "INTERLEAVED": rotary.style == "interleaved",
            "INT8": int8,
            "K_ROW": cache.config.row(k_dim),
            "V_ROW": cache.config.row(self.v_dim),
            "BLOCK_K": self.block_k,
            "BLOCK_V": self.block_v,
        }

    def most(self, item_bytes: int) -> int:
        """Queries that an item may have, so that its results stay in registers; float32 has no tensor cores to help."""
        numbers = 1 << 14 if item_bytes == 2 else 1 << 11
        return max(1, min(128, numbers // max(self.block_k, self.block_v)) // self.group)


def tiles(queries: int, block_k: int, block_v: int, item_bytes: int) -> dict[str, int]:
    """For items of so many queries times group: sizes and warps. A stage of keys and values takes at most 32 KiB."""
    m = max(16, power(queries))
    room = max(16, (32 << 10) // ((block_k + block_v) * item_bytes))
    n = min(128 if m < 64 else 64, power(room + 1) // 2)  # a power of two, where keys and values differ in size too
    return {"BLOCK_M": m, "BLOCK_N": n, "num_warps": 8 if m * (n + block_v) > 64 * 192 else 4}


class TritonAttention(AttentionKernel):
    """The Triton attention of one cache."""

    name = "triton"
    preference = 20
    has_static_plans = True

    def __init__(self, setup: AttentionSetup) -> None:
        super().__init__(setup)
        device = setup.cache.device
        moved = {id(r): Rotary(r.style, r.start, r.inv_freq.to(device)) for r in setup.rotaries}
        heads = enumerate(zip(setup.rotaries, setup.q_heads, strict=True))
        self.layers = [Layer(setup.cache, at, moved[id(rotary)], q_heads) for at, (rotary, q_heads) in heads]
        gpu = device.type == "cuda"  # the interpreter is one processor
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count if gpu else 1
        self._cuts = Cuts(
            most=min(layer.most(setup.dtype.itemsize) for layer in self.layers),
            programs=max(1, 4 * self.processors // min(layer.kv_heads for layer in self.layers)),
            parts=max(1, WORKSPACE // max(4 * layer.q_heads * layer.v_dim for layer in self.layers)),
        )
        self._latest: tuple[Plan, list[Tables]] | None = None

    @classmethod
    def lacks(cls, setup: AttentionSetup) -> KvorumError | None:
        """A dtype that the kernels take, the package triton, and a GPU or triton's interpreter."""
        cache = setup.cache
        computed = setup.dtype if cache.dtype == torch.int8 else cache.dtype
        if computed not in _DTYPES:
            kind = str(computed).removeprefix("torch.")
            return BadRequest(
                f"The Triton attention takes bfloat16, float16 and float32, not {kind}; take attention='auto'."
            )
        if kernels() is None:
            return MissingExtra("The Triton attention needs triton: pip install triton, or take attention='auto'.")
        if cache.device.type != "cuda" and not kernels().INTERPRETED:
            return BadRequest(
                f"The Triton attention needs a GPU and the model is on {cache.device}; take attention='auto'."
            )
        return None

    @classmethod
    def suits(cls, setup: AttentionSetup) -> bool:
        """It is taken by itself on a GPU alone: in the interpreter it is slow."""
        return setup.cache.device.type == "cuda"

    def tables(self, plan: Plan) -> list[Tables]:
        """The passes of a plan; those of the latest plan are kept, so that asking twice costs nothing."""
        if self._latest is None or self._latest[0] is not plan:
            self._latest = plan, self._cuts.tables(plan)
        return self._latest[1]

    @property
    def cuts(self) -> Cuts:
        """How plans are cut here; several processes that must have the same tables set what suits all of them."""
        return self._cuts

    @cuts.setter
    def cuts(self, cuts: Cuts) -> None:
        self._cuts, self._latest = cuts, None

    def bind(self, plan: Plan, tap: Tap | None = None) -> BoundTriton:
        """Make one tick's plan ready. There is no tap; who asks for one is told before the tick (``lacks_tap``)."""
        assert tap is None
        device = self.setup.cache.device
        return BoundTriton(self, plan.tokens, [Pass(made, made.sizes, device) for made in self.tables(plan)])

    def lacks_tap(self) -> KvorumError | None:
        """The kernels keep their partial softmaxes to themselves."""
        return BadRequest("The Triton attention has no tap; load the engine with attention='reference'.")

    def static_key(self, plan: Plan) -> StaticKey | None:
        """As ``Cuts.key``."""
        return static_key(self.tables(plan))

    def bind_static(self, plan: Plan) -> StaticBoundTriton:
        """Buffers for the plan's padded sizes, holding it."""
        (tables,) = self.tables(plan)
        room = tables.sizes.rounded()
        return StaticBoundTriton(self, room.tokens, [Pass(tables, room, self.setup.cache.device)])

    def guard(self) -> AbstractContextManager[object]:
        """Makes the cache's GPU the current one: Triton launches there."""
        device = self.setup.cache.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class BoundTriton(BoundPlan):
    """A plan on a cache, as tables on the device."""

    def __init__(self, attention: TritonAttention, tokens: int, passes: Sequence[Pass]) -> None:
        self.tokens = tokens
        self.passes = passes
        self._attention = attention
        self._results: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def forget(self) -> None:
        """Begin anew on what the passes hold now."""
        self._results.clear()
        for part in self.passes:
            part.forget()

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        """As ``Attends.attend``."""
        query, keys, values = (x if x.stride(2) == 1 else x.contiguous() for x in (query, keys, values))
        out = query.new_empty(self.tokens, query.shape[0], values.shape[2])
        about = self._attention.layers[layer]
        with self._attention.guard():
            for part in self.passes:  # all rows' keys are there before any row attends
                self._store(part, about, keys, values)
            for part in self.passes:
                partial, lse = self._scores(part, about, query, softmax)
                self._merge(part, partial, lse, out, softmax.sinks)
        return out

    def _store(self, part: Pass, layer: Layer, keys: Tensor, values: Tensor) -> None:
        tokens = part.room.tokens
        cos, sin = part.angles(layer.rotary)
        kernels().store[(-(-tokens // _STORED), layer.kv_heads)](
            keys[:, part.first :],
            values[:, part.first :],
            layer.keys,
            layer.values,
            *layer.scales,
            cos,
            sin,
            part.columns.slots,
            tokens,
            keys.stride(0),
            keys.stride(1),
            values.stride(0),
            values.stride(1),
            layer.keys.stride(0),
            layer.values.stride(0),
            BLOCK_T=_STORED,
            enable_fp_fusion=False,  # a product that is added is rounded before, as on the CPU, or int8 has other bits
            **layer.constants,
        )

    def _scores(self, part: Pass, layer: Layer, query: Tensor, softmax: Softmax) -> tuple[Tensor, Tensor]:
        sizes = tiles(part.width * layer.group, layer.block_k, layer.block_v, query.dtype.itemsize)
        partial, lse = self._room(part, layer.q_heads, layer.v_dim)
        cos, sin = part.angles(layer.rotary)
        kernels().attend[(part.room.items, layer.kv_heads)](
            query[:, part.first :],
            layer.keys,
            layer.values,
            *layer.scales,
            cos,
            sin,
            part.columns.items,
            part.columns.queries,
            part.columns.deltas,
            part.columns.gathered,
            partial,
            lse,
            query.stride(0),
            query.stride(1),
            layer.keys.stride(0),
            layer.values.stride(0),
            part.delta_line,
            part.shift_line,
            softmax.window or 1 << 30,
            softmax.scale,
            softmax.softcap or 1.0,
            GROUP=layer.group,
            CAPPED=softmax.softcap is not None,
            TURNED=part.turned and layer.rotary.style != "none",
            num_stages=2,
            **layer.constants,
            **sizes,
        )
        return partial, lse

    def _merge(self, part: Pass, partial: Tensor, lse: Tensor, out: Tensor, sinks: Tensor | None) -> None:
        tokens, (_, heads, v_dim) = min(part.room.tokens, self.tokens - part.first), out.shape
        together = min(8, power(heads), power(-(-tokens * heads // (4 * self._attention.processors))))
        kernels().merge[(tokens, -(-heads // together))](
            partial,
            lse,
            part.columns.ends,
            part.columns.parts,
            lse if sinks is None else sinks,
            out[part.first :],
            heads,
            V_DIM=v_dim,
            SINKS=sinks is not None,
            BLOCK_P=_MERGED // together,
            BLOCK_H=together,
            BLOCK_V=power(v_dim),
        )

    def _room(self, part: Pass, heads: int, v_dim: int) -> tuple[Tensor, Tensor]:
        """``[parts, heads, v_dim]`` and ``[parts, heads]`` for partial results, one for all layers and passes."""
        parts = max(other.room.parts for other in self.passes)
        if (heads, v_dim) not in self._results:
            made = part.columns.slots.new_empty(parts, heads, v_dim, dtype=torch.float32)
            self._results[heads, v_dim] = made, made.new_empty(parts, heads)
        return self._results[heads, v_dim]


class StaticBoundTriton(BoundTriton, StaticPlan):
    """A plan of one pass in buffers that stay."""

    def fill(self, plan: Plan) -> None:
        """Put another plan of the same key into the buffers."""
        (tables,) = self._attention.tables(plan)
        self.passes[0].fill(tables)
