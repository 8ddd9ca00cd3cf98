"""Attention over a plan in plain torch: the twin that every fast path is held to.

Each segment's keys and values are read once; the queries of all rows that see it are stacked into one product per KV
head. The partial softmaxes are merged by their log-sum-exp. Works on any device and dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kvorum.attention.kernel import AttentionKernel, AttentionSetup, BoundPlan, Softmax
from kvorum.attention.plan import Plan, Segment
from kvorum.attention.rotary import Rotary
from kvorum.attention.tap import Look, Tap
from kvorum.kv import CacheShape

SCORES = 1 << 22
"""At most this many scores (heads x queries x keys) are held at once; longer prefills go through in parts."""


class ReferenceAttention(AttentionKernel):
    """The reference on one cache. It covers everything, a tap too."""

    name = "reference"

    def bind(self, plan: Plan, tap: Tap | None = None) -> BoundReference:
        """Make one tick's plan ready."""
        return BoundReference(self.setup, plan, tap)


class BoundReference(BoundPlan):
    """A plan on a cache. Rotation tables are made once a tick and shared by the layers."""

    def __init__(self, setup: AttentionSetup, plan: Plan, tap: Tap | None = None) -> None:
        self.plan = plan if setup.cache.device.type == "cpu" else _moved(plan, setup.cache.device)
        self._cache = setup.cache
        self._rotaries = setup.rotaries
        self._tap = tap
        # Only tensors that live as long as the plan are looked up by identity.
        shared = [self.plan.index]
        for segment in self.plan.segments:
            shared += [segment.delta] if segment.shift is None else [segment.delta, segment.shift]
        self._shared = {id(tensor) for tensor in shared}
        self._tables: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        """As ``Attends.attend``."""
        rotary = self._rotaries[layer]

        def turn(x: Tensor, positions: Tensor) -> Tensor:
            return rotary.apply(x, *self._table(rotary, positions, x.dtype))

        self._cache.write(layer, self.plan.slots, turn(keys, self.plan.index), values)
        look = None if self._tap is None else Look(self._tap, layer)
        read = partial(self._cache.numbers, layer)
        return attend(query, read, self._cache.layers[layer], self.plan.segments, turn, softmax, look)

    def _table(self, rotary: Rotary, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if rotary.style == "none":
            return positions, positions
        if id(positions) not in self._shared:
            return rotary.cos_sin(positions, dtype)
        key = (id(rotary.inv_freq), id(positions))
        if key not in self._tables:
            self._tables[key] = rotary.cos_sin(positions, dtype)
        return self._tables[key]


def _moved(plan: Plan, device: torch.device) -> Plan:
    def there(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=device.type == "cuda")

    queries, deltas = there(plan.queries), there(plan.deltas)
    segments = tuple(
        replace(
            segment,
            slots=segment.slots if isinstance(segment.slots, slice) else there(segment.slots),
            shift=None if segment.shift is None else there(segment.shift),
            queries=queries,
            deltas=deltas,
        )
        for segment in plan.segments
    )
    return replace(plan, slots=there(plan.slots), index=there(plan.index), segments=segments)


def attend(
    query: Tensor,
    read: Callable[[slice | Tensor], tuple[Tensor, Tensor]],
    shape: CacheShape,
    segments: tuple[Segment, ...],
    turn: Callable[[Tensor, Tensor], Tensor],
    softmax: Softmax,
    look: Look | None = None,
) -> Tensor:
    """Attend from the tick's new tokens to all segments of its plan.

    Args:
        query: unrotated queries ``[q_heads, tokens, k_dim]``.
        read: what one layer of the pool, of ``shape``, holds at some slots, this tick's included: keys
            ``[kv_heads, n, k_dim]``, rotated to their index in the block, and values ``[kv_heads, n, v_dim]``, floats.
        turn: ``turn(x [heads, n, dim], positions [n])``, the layer's rotation.
        look: gets the partial softmaxes, where a tap is on.

    Returns:
        ``[tokens, q_heads, v_dim]`` in the dtype of the query.
    """
    scale, window, softcap, sinks = softmax
    heads, tokens, _ = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    out = query.new_zeros(heads, tokens, shape.v_dim, dtype=wide)
    if sinks is None:
        lse = query.new_full((heads, tokens), float("-inf"), dtype=wide)
    else:
        lse = sinks.to(wide)[:, None].expand(heads, tokens).clone()
    for segment in segments:
        if segment.length == 0:
            continue
        count = tokens if segment.tokens is None else len(segment.tokens)
        step = max(1, SCORES // (heads * segment.length))
        key, value = (stored.to(query.dtype) for stored in read(segment.slots))
        key = key if segment.shift is None else turn(key, segment.shift)
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            picked: slice | Tensor = part if segment.tokens is None else segment.tokens[part]
            delta = segment.delta if step >= count else segment.delta[part]  # whole: the tick knows its table
            skip = _out_of_window(segment, delta, window)
            near_key, near_value = key[:, skip:], value[:, skip:]
            if near_key.shape[1] == 0:
                continue
            turned = turn(query[:, picked], delta)
            scores = turned.reshape(shape.kv_heads, -1, turned.shape[-1]) @ near_key.transpose(1, 2)
            scores = scores.to(wide).view(heads, len(delta), -1) * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if segment.masked or window is not None:
                first = segment.first + skip
                distance = delta[:, None] - torch.arange(first, first + near_key.shape[1], device=delta.device)
                hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
                scores = scores.masked_fill(hidden, float("-inf"))
            part_lse = torch.logsumexp(scores, dim=-1)
            # a query that sees nothing here has lse -inf; the max keeps exp(-inf - -inf) from becoming NaN
            weights = torch.exp(scores - part_lse.clamp_min(torch.finfo(wide).min)[..., None])
            if look is not None:
                look.add(picked, segment.slots, skip, weights, part_lse)
            weights = weights.to(near_value.dtype).view(shape.kv_heads, -1, near_value.shape[1])
            part_out = (weights @ near_value).view(heads, len(delta), -1)
            _merge(out, lse, picked, part_out.to(wide), part_lse)
    if look is not None:
        look.finish(lse)
    return out.transpose(0, 1).to(query.dtype)


def _out_of_window(segment: Segment, delta: Tensor, window: int | None) -> int:
    """How many keys at the segment's beginning the window leaves to none of the queries."""
    if window is None:
        return 0
    return min(max(0, int(delta.min()) - window + 1 - segment.first), segment.length)


def _merge(out: Tensor, lse: Tensor, picked: slice | Tensor, part_out: Tensor, part_lse: Tensor) -> None:
    """Fold one segment's result into the running one; both are weighted by their share of the softmax."""
    whole = torch.logaddexp(lse[:, picked], part_lse)
    floor = whole.clamp_min(torch.finfo(whole.dtype).min)
    out[:, picked] = (
        out[:, picked] * torch.exp(lse[:, picked] - floor)[..., None]
        + part_out * torch.exp(part_lse - floor)[..., None]
    )
    lse[:, picked] = whole
