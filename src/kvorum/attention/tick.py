"""One tick as the layers see it: write all rows' new keys and values, then attend.

The model's layers call ``attend`` in their order. Rotation tables are made once per tick and shared by the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvorum.attention.plan import Plan
from kvorum.attention.reference import attend
from kvorum.attention.rotary import Rotary
from kvorum.attention.tap import Tap
from kvorum.kv import PagePool


class Tick:
    """A plan bound to a pool and to the rotation of each layer, with a tap or without."""

    def __init__(self, plan: Plan, pool: PagePool, rotaries: Sequence[Rotary], tap: Tap | None = None) -> None:
        self.plan = plan if pool.device.type == "cpu" else _moved(plan, pool.device)
        self._pool = pool
        self._rotaries = rotaries
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
        """Store this layer's new keys and values and attend to everything that the rows see.

        Args:
            layer: which one. query: ``[q_heads, tokens, k_dim]``, keys: ``[kv_heads, tokens, k_dim]``, both unrotated.
            values: ``[kv_heads, tokens, v_dim]``. The rest as in ``reference.attend``.

        Returns:
            ``[tokens, q_heads, v_dim]``.
        """
        rotary = self._rotaries[layer]

        def turn(x: Tensor, positions: Tensor) -> Tensor:
            return rotary.apply(x, *self._table(rotary, positions, x.dtype))

        self._pool.write(layer, self.plan.slots, turn(keys, self.plan.index), values)
        return attend(
            query,
            self._pool.keys[layer],
            self._pool.values[layer],
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

    segments = tuple(
        replace(
            segment,
            slots=segment.slots if isinstance(segment.slots, slice) else there(segment.slots),
            shift=None if segment.shift is None else there(segment.shift),
            tokens=None if segment.tokens is None else there(segment.tokens),
            delta=there(segment.delta),
        )
        for segment in plan.segments
    )
    return replace(plan, slots=there(plan.slots), index=there(plan.index), segments=segments)
