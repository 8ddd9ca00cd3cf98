"""One pass of a tick by the Triton kernels: its tables on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from kvorum.attention.rotary import Rotary
from kvorum.attention.triton.tables import Columns, Sizes, Tables, sections


class Pass:
    """Tables on the device, in an array with ``room`` that later tables of the same ``width`` may be put into."""

    def __init__(self, tables: Tables, room: Sizes, device: torch.device) -> None:
        self.first, self.width, self.turned, self.room = tables.first, tables.width, tables.turned, room
        places = sections(room)
        self._array = torch.empty(places.parts.stop, dtype=torch.int32, device=device)
        self.columns = Columns(*(self._array[place] for place in places))
        # every position that the pass turns by: of new keys, of queries, of gathered keys
        self._positions = self._array[places.indices.start : places.shifts.stop]
        self.delta_line = places.deltas.start - places.indices.start
        self.shift_line = places.shifts.start - places.indices.start
        self._angles: dict[int, tuple[Tensor, Tensor]] = {}
        self.fill(tables)

    def fill(self, tables: Tables) -> None:
        """Replace what the array holds, by one copy that the host does not wait for."""
        packed = torch.from_numpy(tables.packed(self.room))
        if self._array.is_cuda:
            packed = packed.pin_memory()  # kept by its allocator until the copy is done
        self._array.copy_(packed, non_blocking=True)
        self.forget()

    def forget(self) -> None:
        """Forget what was computed from the positions."""
        self._angles.clear()

    def angles(self, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[positions, rotated / 2]``, float32, made once a tick and shared by the layers."""
        if id(rotary) not in self._angles:
            self._angles[id(rotary)] = rotary.cos_sin(self._positions, torch.float32)
        return self._angles[id(rotary)]
