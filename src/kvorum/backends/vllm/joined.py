"""What the ranks hold together: the layers of all stages behind one another, of each layer the heads of all ranks.

Where there are more ranks than heads of keys, several hold the same head, and it counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvorum.attention.rotary import Rotary
from kvorum.backends.vllm.tensors import unpack
from kvorum.errors import UnsupportedModel
from kvorum.kv import CacheShape
from kvorum.models.shape import LayerShape


@dataclass(frozen=True)
class Place:
    """Where a rank stands: its ``tp``-th part of each layer of stage ``pp``, and which layers those are."""

    tp: int
    pp: int
    layers: tuple[int, ...]

    @classmethod
    def told(cls, answer: bytes) -> Place:
        """What a rank says of itself."""
        header, _ = unpack(answer)
        return cls(header["tp"], header["pp"], tuple(header["layers"]))


class Ranks:
    """All ranks of an engine. ``same``: how many of them hold each head of keys.

    Raises:
        UnsupportedModel: not each layer is held once.
    """

    def __init__(self, name: str, places: Sequence[Place], same: int, layers: int) -> None:
        self.places, self.same = places, same
        self.degree = 1 + max(place.tp for place in places)
        held = sorted(layer for place in places if place.tp == 0 for layer in place.layers)
        if held != list(range(layers)):
            silent = sorted(set(range(layers)) - set(held))
            raise UnsupportedModel(
                f"{name} has layers without attention (such as {silent[0] if silent else len(held)}): the state "
                "of recurrent and hybrid models cannot be put together from blocks."
            )

    @property
    def heads_before(self) -> list[int]:
        """Of each rank of a stage, how many times its own number of heads lie before its own."""
        return [tp // self.same for tp in range(self.degree)]

    def shapes(self, answers: Sequence[bytes]) -> tuple[LayerShape, ...]:
        """The model's layers; layers that turn alike share a rotation."""
        rotaries: dict[tuple[str, int, bytes], Rotary] = {}
        found: dict[int, LayerShape] = {}
        for place, answer in zip(self.places, answers, strict=True):
            if place.tp:
                continue
            header, tensors = unpack(answer)
            for at, (q_heads, kv_heads, k_dim, v_dim, window, style, start) in enumerate(header):
                frequencies = tensors[f"{at}"]
                key = (style, start, frequencies.numpy().tobytes())
                rotary = rotaries.setdefault(key, Rotary(style, start, frequencies))
                kv = kv_heads * self.degree // self.same
                found[place.layers[at]] = LayerShape(rotary, q_heads * self.degree, kv, k_dim, v_dim, window)
        return tuple(found[layer] for layer in sorted(found))

    def read(self, answers: Sequence[bytes]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer, whole."""
        parts: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for place, answer in sorted(zip(self.places, answers, strict=True), key=lambda pair: pair[0].tp):
            if place.tp % self.same == 0:
                _, tensors = unpack(answer)
                for at, layer in enumerate(place.layers):
                    parts.setdefault(layer, []).append((tensors[f"keys.{at}"], tensors[f"values.{at}"]))
        return [
            (torch.cat([keys for keys, _ in parts[layer]]), torch.cat([values for _, values in parts[layer]]))
            for layer in sorted(parts)
        ]

    def shares(self, found: Sequence[Tensor | None]) -> Tensor | None:
        """A tap's shares ``[layers, tokens, groups]``: means over the heads of all ranks."""
        if any(part is None for part in found):
            return None
        sums: dict[int, Tensor] = {}
        for place, part in zip(self.places, found, strict=True):
            for layer, shares in zip(place.layers, part if part is not None else (), strict=True):
                sums[layer] = sums.get(layer, torch.zeros_like(shares)) + shares / self.degree
        return torch.stack([sums[layer] for layer in sorted(sums)])


def cache_shapes(layers: Sequence[LayerShape]) -> tuple[CacheShape, ...]:
    """What each layer stores per token."""
    return tuple(CacheShape(layer.kv_heads, layer.k_dim, layer.v_dim) for layer in layers)
