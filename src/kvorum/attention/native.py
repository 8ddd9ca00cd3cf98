"""Attention over a plan by the native kernels: float32 on the CPU, over float32, float16 or int8, one call a layer.

The twin is ``reference.attend``, behind the same ``attend`` of a tick. Covers what the reference covers: shared
and joined segments, windows, sinks, soft caps, every rotation. The kernels come from ``kvorum.native_extension``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kvorum.attention.kernel import AttentionKernel, AttentionSetup, BoundPlan, Softmax
from kvorum.attention.plan import Plan
from kvorum.attention.rotary import Rotary
from kvorum.attention.tap import Tap
from kvorum.errors import BadRequest, KvorumError
from kvorum.native_extension import kernels

if TYPE_CHECKING:
    from kvorum_native import AttentionLayer, Decoder, Rotation

LayerKey = tuple[int, int, float, int | None, float | None, int]
"""Layer, query heads, scale, window, soft cap, and the address of the sinks or 0."""

_STORED = (torch.float32, torch.float16, torch.int8)
_STYLES = {"none": 0, "half": 1, "interleaved": 2}
_LEAST_TABLE, _MOST_TABLE = 1024, 65536
"""Positions whose cosines and sines are kept: at least, and at most (16 MB for 64 features that turn)."""
_REMEMBER = 8
"""Sets of joined runs whose turns are kept: two tables of a float per key and pair of features each."""


class NativeAttention(AttentionKernel):
    """The native attention of one cache."""

    name = "native"
    preference = 10

    def __init__(self, setup: AttentionSetup) -> None:
        super().__init__(setup)
        native = kernels()
        assert native is not None, "lacks() says whether the extension is there"
        self.native = native
        self.rotations = {id(rotary): rotary for rotary in setup.rotaries}
        self._cosines: dict[int, list[Tensor]] = {}
        self._stacks: dict[tuple[int, tuple[Softmax, ...]], list[AttentionLayer]] = {}
        self._layers: dict[LayerKey, tuple[AttentionLayer, Tensor | None]] = {}
        self._shifted: OrderedDict[tuple[int, ...], tuple[Rotary, tuple[Tensor, ...], list[Tensor]]] = OrderedDict()

    @classmethod
    def lacks(cls, setup: AttentionSetup) -> KvorumError | None:
        """The kernels, or a setup that they cover."""
        cache, native = setup.cache, kernels()
        if native is None or setup.dtype != torch.float32 or cache.dtype not in _STORED or cache.device.type != "cpu":
            return BadRequest(
                "The native attention needs the distribution kvorum-native, a float32 model on a CPU and a cache in "
                "float32, float16 or int8; take attention='auto'."
            )
        if cache.dtype == torch.int8 and not hasattr(native.AttentionLayer, "hold_int8"):
            return BadRequest(
                "The installed kvorum-native is from before caches in int8: install the one that came with this kvorum "
                "(pip install ./native), or take attention='auto', which is slower."
            )
        return None

    def shifted(self, rotary: Rotary, shifts: tuple[Tensor, ...]) -> list[Tensor]:
        """Turns of joined runs: cosines and sines of their shifts, and each key's row of these. Kept as they are."""
        key = (id(rotary), *map(id, shifts))  # all of them are held below, so no other can have their ids
        if key not in self._shifted:
            shift, row = torch.unique(torch.cat(shifts), return_inverse=True) if shifts else (None, torch.empty(0))
            self._shifted[key] = (rotary, shifts, [*_tables(rotary, shift), row])
            while len(self._shifted) > _REMEMBER:
                self._shifted.popitem(last=False)
        self._shifted.move_to_end(key)
        return self._shifted[key][2]

    def turned(self, rotary: Rotary, positions: Tensor) -> list[Tensor]:
        """Cosines and sines ``[positions, half]``: looked up, but for positions that lie outside of the kept table."""
        known = self._cosines.get(id(rotary))
        if known is not None:
            try:
                return [table.index_select(0, positions) for table in known]
            except IndexError:  # beyond the table; asking first would cost as much as the looking up
                pass
        low, high = (int(end) for end in torch.aminmax(positions))
        if rotary.style == "none" or low < 0 or high >= _MOST_TABLE:
            return _tables(rotary, positions)
        size = max(_LEAST_TABLE, 2 << high.bit_length())
        known = self._cosines[id(rotary)] = _tables(rotary, torch.arange(size))
        return [table.index_select(0, positions) for table in known]

    def bind(self, plan: Plan, tap: Tap | None = None) -> BoundNative:
        """Make one tick's plan ready."""
        return BoundNative(self, plan, tap)

    def stack(self, q_heads: int, softmaxes: tuple[Softmax, ...]) -> list[AttentionLayer]:
        """What the kernels need to know of all layers of a plain decoder, made once."""
        key = (q_heads, softmaxes)
        if key not in self._stacks:
            self._stacks[key] = [self.layer(at, q_heads, softmax) for at, softmax in enumerate(softmaxes)]
        return self._stacks[key]

    def layer(self, at: int, q_heads: int, softmax: Softmax) -> AttentionLayer:
        """What the kernels need to know of a layer, made once."""
        scale, window, softcap, sinks = softmax
        key = (at, q_heads, scale, window, softcap, 0 if sinks is None else sinks.data_ptr())
        if key not in self._layers:
            shape, rotary = self.setup.cache.layers[at], self.setup.rotaries[at]
            wide = None if sinks is None else sinks.detach().float().contiguous()
            made = self.native.AttentionLayer(
                self.setup.cache.keys[at].data_ptr(),
                self.setup.cache.values[at].data_ptr(),
                self.setup.cache.dtype == torch.float16,
                self.setup.cache.keys[at].shape[1],
                q_heads,
                shape.kv_heads,
                shape.k_dim,
                shape.v_dim,
                _STYLES[rotary.style],
                rotary.start,
                rotary.rotated // 2,
                window or 0,
                softcap or 0.0,
                scale,
                0 if wide is None else wide.data_ptr(),
            )
            if self.setup.cache.dtype == torch.int8:
                made.hold_int8()
            self._layers[key] = (made, wide)
        return self._layers[key][0]


class BoundNative(BoundPlan):
    """A plan on a cache, as tables that the kernels read."""

    def __init__(self, attention: NativeAttention, plan: Plan, tap: Tap | None = None) -> None:
        self.plan = plan
        self._tap = tap
        self._attention = attention
        self._threads = torch.get_num_threads()
        lines: list[tuple[int, ...]] = []
        shifts: list[Tensor] = []
        self._held: list[Tensor] = []  # whose addresses the table holds
        shifted, begin = 0, 0
        for segment, end in zip(plan.segments, plan.ends, strict=True):
            where, first, turned = 0, 0, -1
            if isinstance(segment.slots, slice):
                first = segment.slots.start
            else:
                slots = segment.slots.contiguous()
                self._held.append(slots)
                where = slots.data_ptr()
            if segment.shift is not None:
                turned = shifted
                shifts.append(segment.shift)
                shifted += segment.length
            lines.append((where, first, segment.first, segment.length, turned, begin, end))
            begin = end
        self._shifts = tuple(shifts)
        table = np.array(lines, dtype=np.int64)
        self._plan = attention.native.AttentionPlan(
            table.ctypes.data,
            len(table),
            plan.queries.data_ptr(),
            plan.deltas.data_ptr(),
            plan.slots.data_ptr(),
            plan.tokens,
        )
        self._turns: dict[int, tuple[Rotation, tuple[Tensor, ...]]] = {}
        if tap is not None:
            watched, shares = tap.lines.data_ptr(), tap.shares
            self._plan.watch(tap.groups.data_ptr(), tap.count, watched, len(tap.tokens), shares.data_ptr())

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        """As ``Attends.attend``."""
        attention = self._attention
        about = attention.layer(layer, query.shape[0], softmax)
        query, keys, values = _by_token(query), _by_token(keys), _by_token(values)
        out = torch.empty(query.shape[0], query.shape[1], values.shape[2])
        if self._tap is not None:
            self._plan.aim(self._tap.shares[layer].data_ptr())
        self._plan.attend(
            about,
            self._turn(attention.setup.rotaries[layer]),
            query.data_ptr(),
            query.stride(0),
            keys.data_ptr(),
            keys.stride(0),
            values.data_ptr(),
            values.stride(0),
            out.data_ptr(),
            self._threads,
        )
        return out

    def run_decoder(
        self,
        decoder: Decoder,
        x: Tensor,
        wanted: Tensor,
        logits: Tensor,
        hidden: Tensor | None,
        softmaxes: tuple[Softmax, ...],
    ) -> bool:
        """As ``BoundPlan.run_decoder``, with this tick's attention in each layer."""
        attention = self._attention
        turns = {key: self._turn(rotary) for key, rotary in attention.rotations.items()}
        decoder.forward(
            self._plan,
            attention.stack(decoder.q_heads, softmaxes),
            [turns[id(rotary)] for rotary in attention.setup.rotaries],
            x.data_ptr(),
            wanted.data_ptr(),
            len(wanted),
            logits.data_ptr(),
            0 if hidden is None else hidden.data_ptr(),
            self._threads,
        )
        return True

    def _turn(self, rotary: Rotary) -> Rotation:
        """The tables of a rotation, made once a tick."""
        known = self._turns.get(id(rotary))
        if known is None:
            # of queries and new keys in one go: what they cost is the calls
            queries = len(self.plan.deltas)
            cos, sin = self._attention.turned(rotary, torch.cat((self.plan.deltas, self.plan.index)))
            tables = [cos[:queries], sin[:queries], cos[queries:], sin[queries:]]
            tables += self._attention.shifted(rotary, self._shifts)
            made = self._attention.native.Rotation(*(table.data_ptr() for table in tables))
            known = self._turns[id(rotary)] = (made, tuple(tables))
        return known[0]


def _tables(rotary: Rotary, positions: Tensor | None) -> list[Tensor]:
    """Cosines and sines ``[positions, half]``, float32; empty where nothing turns."""
    if positions is None or rotary.style == "none":
        return [torch.empty(0), torch.empty(0)]
    return [table.contiguous() for table in rotary.cos_sin(positions, torch.float32)]


def _by_token(x: Tensor) -> Tensor:
    """``[heads, tokens, dim]`` as ``[tokens, heads, dim]``, the heads of a token side by side; copied if need be."""
    x = x.transpose(0, 1)
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
