"""The KV cache: its size, and the tensors that hold every stored key and value, by slot.

Covers shapes, tokens, pages and bytes, the tensors, writing and reading slots, and carrying slots to other places with
their keys turned. Knows nothing of blocks, views or models; which slot belongs to whom is the page pool's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kvorum.errors import BadRequest
from kvorum.kv.int8_rows import decode, encode, row_bytes

_TOGETHER = 4096
"""Tokens times layers that are carried in one go: a few tokens, layer by layer, would be many short calls."""


class CacheShape(NamedTuple):
    """What one layer stores per token: ``kv_heads`` keys of ``k_dim`` and values of ``v_dim`` numbers."""

    kv_heads: int
    k_dim: int
    v_dim: int


@dataclass(frozen=True)
class CacheConfig:
    """The size of a cache: what each layer stores per token, for how many ``tokens``, in pages of ``page_size`` slots.

    ``dtype`` is what a number is stored in; in ``torch.int8`` the scales stand beside them (``int8_rows``).

    Raises:
        BadRequest: ``tokens`` or ``page_size`` is not a whole number of at least 1.
    """

    layers: tuple[CacheShape, ...]
    tokens: int
    page_size: int = 16
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for size in (self.tokens, self.page_size):
            if not isinstance(size, int) or size < 1:
                raise BadRequest(
                    f"kv_tokens={self.tokens} and page_size={self.page_size} must both be whole numbers of at least 1."
                )

    @property
    def pages(self) -> int:
        """How many pages it takes to hold that many tokens."""
        return -(-self.tokens // self.page_size)

    @property
    def slots(self) -> int:
        """Places for tokens in all pages."""
        return self.pages * self.page_size

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values that one token takes over all layers."""
        items = sum(s.kv_heads * (self.row(s.k_dim) + self.row(s.v_dim)) for s in self.layers)
        return items * self.dtype.itemsize

    def row(self, dim: int) -> int:
        """Items of ``dtype`` that ``dim`` numbers of one token and head take."""
        return row_bytes(dim) if self.dtype == torch.int8 else dim

    def numbers(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What stored keys and values of a layer stand for: ``[..., k_dim]`` and ``[..., v_dim]``, in a float dtype."""
        if self.dtype != torch.int8:
            return keys, values
        shape = self.layers[layer]
        return decode(keys, shape.k_dim), decode(values, shape.v_dim)


@dataclass(frozen=True)
class CachePart:
    """What one of several processes holds of a cache: layers from ``first`` on, of each the heads from ``heads`` on.

    ``whole``: what all of them store per token, layer by layer. ``own``: what is here, of layers ``first`` and on;
    ``heads``: of each the first head.
    """

    whole: tuple[CacheShape, ...]
    first: int
    own: tuple[CacheShape, ...]
    heads: tuple[int, ...]

    @classmethod
    def all_of(cls, layers: tuple[CacheShape, ...]) -> CachePart:
        """A process that holds everything."""
        return cls(layers, 0, layers, (0,) * len(layers))

    def take(self, layer: int, whole: Tensor) -> Tensor | None:
        """The own heads of ``whole [kv_heads, ...]`` of the model's layer ``layer``; None: it is held elsewhere."""
        if not 0 <= (at := layer - self.first) < len(self.own):
            return None
        return whole[self.heads[at] : self.heads[at] + self.own[at].kv_heads]


class Rotation(Protocol):
    """How one layer turns keys by position."""

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate ``x [heads, n, dim]`` by ``positions [n]``; a new tensor of the same shape and dtype."""


class KVCache:
    """Keys and values of all slots, in every layer.

    ``keys[layer]`` is ``[kv_heads, slots, k_dim]`` and ``values[layer]`` ``[kv_heads, slots, v_dim]``, in int8 with the
    bytes of a row for the last; ``numbers`` is what they stand for. A slot holds one token in every layer. ``stacks``
    are the same memory: ``(keys, values)`` of each run of layers of the same shape, a dimension of layers in front.
    Memory is claimed from the system only when a slot is first written.

    Raises:
        BadRequest: the system has not that much memory.
    """

    def __init__(self, config: CacheConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.layers = config.layers
        self.dtype = config.dtype
        self.device = torch.device(device)

        def empty(layers: int, heads: int, dim: int) -> Tensor:
            return torch.empty(layers, heads, config.slots, config.row(dim), dtype=config.dtype, device=device)

        try:
            self.stacks = [
                (empty(n, shape.kv_heads, shape.k_dim), empty(n, shape.kv_heads, shape.v_dim))
                for shape, n in ((shape, len(list(run))) for shape, run in groupby(self.layers))
            ]
        except (RuntimeError, TypeError) as error:  # too much for the system, or for a tensor's 64 bits
            size = config.slots * config.bytes_per_token / 1e9
            raise BadRequest(
                f"kv_tokens={config.tokens} takes {size:.3g} GB, more than there is; give fewer."
            ) from error
        self.keys = [layer for keys, _ in self.stacks for layer in keys]
        self.values = [layer for _, values in self.stacks for layer in values]

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys ``[kv_heads, n, k_dim]`` and values ``[kv_heads, n, v_dim]`` at ``slots [n]``."""
        self.put(layer, slots, self._stored(keys), self._stored(values))

    def put(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store at ``slots [n]`` what was read from ``keys[layer]`` and ``values[layer]``, as it is."""
        self.keys[layer].index_copy_(1, slots, keys)
        self.values[layer].index_copy_(1, slots, values)

    def numbers(self, layer: int, slots: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Keys ``[kv_heads, n, k_dim]`` and values ``[kv_heads, n, v_dim]`` at ``slots``, in a float dtype."""
        return self.config.numbers(layer, self.keys[layer][:, slots], self.values[layer][:, slots])

    def _stored(self, x: Tensor) -> Tensor:
        return encode(x) if self.dtype == torch.int8 else x.to(self.dtype)

    def carry(self, source: Tensor, shift: Tensor, target: Tensor, rotations: Sequence[Rotation]) -> None:
        """Copy what lies at slots ``source [n]`` to ``target [n]``, each key turned by its ``shift [n]``.

        ``rotations``: of each layer. Layers that turn alike are carried in one call. A key that stays as it was is
        copied to the bit, in int8 too.
        """
        source, shift, target = (x.to(self.device) for x in (source, shift, target))
        step = max(1, _TOGETHER // max(1, len(source)))
        for dim, keys, values, turn in self._alike(rotations):
            for start in range(0, len(keys), step):
                some = slice(start, start + step)
                old = keys[some].index_select(2, source)
                keys[some].index_copy_(2, target, self._turned(old.flatten(0, 1), dim, shift, turn).view(old.shape))
                values[some].index_copy_(2, target, values[some].index_select(2, source))

    def _turned(self, stored: Tensor, dim: int, shift: Tensor, turn: Rotation) -> Tensor:
        """Keys as they are stored, ``dim`` numbers each, turned."""
        if self.dtype != torch.int8:
            return turn.rotate(stored, shift)
        old = decode(stored, dim)
        new = turn.rotate(old, shift)
        return torch.where((new == old).all(-1, keepdim=True), stored, encode(new))

    def _alike(self, rotations: Sequence[Rotation]) -> Iterator[tuple[int, Tensor, Tensor, Rotation]]:
        """Runs of layers of one shape that share a rotation: k_dim, keys and values ``[layers, heads, slots, dim]``."""
        layer = 0
        for keys, values in self.stacks:
            turns = rotations[layer : layer + len(keys)]
            for _, run in groupby(range(len(keys)), key=lambda at, turns=turns: id(turns[at])):  # type: ignore[misc]
                places = list(run)
                first, stop = places[0], places[-1] + 1
                yield self.layers[layer].k_dim, keys[first:stop], values[first:stop], turns[first]
            layer += len(keys)
