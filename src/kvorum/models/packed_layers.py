"""The layers of a Hugging Face model in packed weights: they stand where `nn.Linear` and `nn.Embedding` stood."""

from __future__ import annotations

from torch import Tensor, nn

from kvorum.models.packed import GROUP, Packed, Part
from kvorum.models.products import product, quantize_rows


class PackedLinear(nn.Module):
    """`nn.Linear` with packed weights: x float32 [..., in_features] to float32 [..., out_features]."""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.packed = packed
        self.in_features = packed.features
        self.out_features = packed.rows

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.in_features).float()
        y = product(quantize_rows(flat), self.packed)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def extra_repr(self) -> str:
        bits = "+".join(str(part.bits) for part in self.packed.parts)
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={bits}"


class PackedEmbedding(nn.Module):
    """`nn.Embedding` over the packed rows of an output layer: ids [...] to float32 [..., features]."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        self.num_embeddings = part.rows
        self.embedding_dim = part.data.shape[1] * GROUP

    def forward(self, ids: Tensor) -> Tensor:
        return self.part.dequantize(ids.reshape(-1)).view(*ids.shape, self.embedding_dim)


def put(model: nn.Module, name: str, what: nn.Module | Tensor) -> None:
    """Let ``what`` take the place of the module, parameter or buffer ``name`` of ``model``."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, what)
