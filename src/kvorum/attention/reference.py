"""Attention over a plan in plain torch: the twin that every fast path is held to.

Each segment's keys and values are read once; the queries of all rows that see it are stacked into one product per KV
head. The partial softmaxes are merged by their log-sum-exp. Works on any device and dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kvorum.attention.kernel import AttentionKernel, AttentionSetup, BoundPlan
from kvorum.attention.plan import Plan, Segment
from kvorum.attention.rotary import Rotary
from kvorum.attention.tap import Look, Tap

SCORES = 1 << 22
"""At most this many scores (heads x queries x keys) are held at once; longer prefills go through in parts."""

Turn = Callable[[Tensor, Tensor], Tensor]
"""``turn(x [heads, n, dim], positions [n])``: the layer's rotation."""


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

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """As ``Attends.attend``."""
        rotary = self._rotaries[layer]

        def turn(x: Tensor, positions: Tensor) -> Tensor:
            return rotary.apply(x, *self._table(rotary, positions, x.dtype))

        self._cache.write(layer, self.plan.slots, turn(keys, self.plan.index), values)
        return attend(
            query,
            self._cache.keys[layer],
            self._cache.values[layer],
            self.plan.segments,
            turn,
            scale=scale,
            window=window,
            softcap=softcap,
            sinks=sinks,
            look=None if self._tap is None else self._tap.look(layer),
        )

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
        return tensor.to(device, non_blocking=True)

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
    keys: Tensor,
    values: Tensor,
    segments: tuple[Segment, ...],
    turn: Turn,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    look: Look | None = None,
) -> Tensor:
    """Attend from the tick's new tokens to all segments of its plan.

    Args:
        query: unrotated queries ``[q_heads, tokens, k_dim]``.
        keys, values: one layer of the pool, ``[kv_heads, slots, k_dim]`` and ``[kv_heads, slots, v_dim]``, in any
            dtype; keys rotated to their index in the block, this tick's included.
        scale: factor on the scores. window: distances from 0 to window - 1 are seen, None for all.
        softcap: scores s become ``softcap * tanh(s / softcap)`` before the softmax.
        sinks: ``[q_heads]`` logits that take part in each softmax once and carry no value.
        look: gets the partial softmaxes, where a tap is on.

    Returns:
        ``[tokens, q_heads, v_dim]`` in the dtype of the query.
    """
    heads, tokens, _ = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    kv_heads = keys.shape[0]
    out = query.new_zeros(heads, tokens, values.shape[-1], dtype=wide)
    if sinks is None:
        lse = query.new_full((heads, tokens), float("-inf"), dtype=wide)
    else:
        lse = sinks.to(wide)[:, None].expand(heads, tokens).clone()
    for segment in segments:
        if segment.length == 0:
            continue
        count = tokens if segment.tokens is None else len(segment.tokens)
        step = max(1, SCORES // (heads * segment.length))
        key = value = None
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            picked: slice | Tensor = part if segment.tokens is None else segment.tokens[part]
            delta = segment.delta if step >= count else segment.delta[part]  # whole: the tick knows its table
            if key is None or value is None:
                key = _read(keys, segment, turn, query.dtype)
                value = values[:, segment.slots].to(query.dtype)
            first, near_key, near_value = _within(segment, delta, window, key, value)
            if near_key.shape[1] == 0:
                continue
            turned = turn(query[:, picked], delta)
            scores = turned.reshape(kv_heads, -1, turned.shape[-1]) @ near_key.transpose(1, 2)
            scores = scores.to(wide).view(heads, len(delta), -1) * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if segment.masked or window is not None:
                distance = delta[:, None] - torch.arange(first, first + near_key.shape[1], device=delta.device)
                hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
                scores = scores.masked_fill(hidden, float("-inf"))
            part_lse = torch.logsumexp(scores, dim=-1)
            # a query that sees nothing here has lse -inf; the max keeps exp(-inf - -inf) from becoming NaN
            weights = torch.exp(scores - part_lse.clamp_min(torch.finfo(wide).min)[..., None])
            if look is not None:
                look.add(picked, segment.slots, segment.length - near_key.shape[1], weights, part_lse)
            weights = weights.to(near_value.dtype).view(kv_heads, -1, near_value.shape[1])
            part_out = (weights @ near_value).view(heads, len(delta), -1)
            _merge(out, lse, picked, part_out.to(wide), part_lse)
    if look is not None:
        look.finish(lse)
    return out.transpose(0, 1).to(query.dtype)


def _read(keys: Tensor, segment: Segment, turn: Turn, dtype: torch.dtype) -> Tensor:
    key = keys[:, segment.slots].to(dtype)
    return key if segment.shift is None else turn(key, segment.shift)


def _within(
    segment: Segment, delta: Tensor, window: int | None, key: Tensor, value: Tensor
) -> tuple[int, Tensor, Tensor]:
    """The part of the segment that the window leaves to any of the queries."""
    if window is None:
        return segment.first, key, value
    lo = min(max(0, int(delta.min()) - window + 1 - segment.first), segment.length)
    return segment.first + lo, key[:, lo:], value[:, lo:]


def _merge(out: Tensor, lse: Tensor, picked: slice | Tensor, part_out: Tensor, part_lse: Tensor) -> None:
    """Fold one segment's result into the running one; both are weighted by their share of the softmax."""
    whole = torch.logaddexp(lse[:, picked], part_lse)
    floor = whole.clamp_min(torch.finfo(whole.dtype).min)
    out[:, picked] = (
        out[:, picked] * torch.exp(lse[:, picked] - floor)[..., None]
        + part_out * torch.exp(part_lse - floor)[..., None]
    )
    lse[:, picked] = whole
