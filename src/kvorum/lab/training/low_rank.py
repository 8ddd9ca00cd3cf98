"""Low-rank layers beside a model's own, which stay as they are: what of a large model is trained, and how it is kept.

What is written is an adapter in PEFT's form, which ``Engine.load(..., adapter=FOLDER)`` merges into the weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kvorum.errors import BadRequest
from kvorum.models.adapter import PREFIX, WEIGHTS
from kvorum.models.adapter_config import CONFIG
from kvorum.models.tensor_file import write_tensors


class LowRankLinear(nn.Module):
    """A linear layer that stays, and what is trained beside it: ``base(x) + scale * b a x``.

    ``a [rank, in]`` begins as noise and ``b [out, rank]`` at zero, so that at first it is the layer as it was.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        width = 1 / math.sqrt(base.in_features)
        noise = torch.rand(rank, base.in_features, generator=generator) * 2 - 1
        self.a = nn.Parameter((noise * width).to(base.weight.dtype))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=base.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.scale * (x @ self.a.T @ self.b.T)
        return out


def add_low_rank(
    model: nn.Module, targets: Sequence[str], rank: int, alpha: float, generator: torch.Generator
) -> dict[str, LowRankLinear]:
    """Put a ``LowRankLinear`` in the place of each linear layer whose name ends with one of ``targets``, in place.

    Args:
        model: nothing else of it is trained any more. alpha: over ``rank``, what the change is multiplied by.

    Returns the new layers by their names.

    Raises:
        BadRequest: the model has no such layer.
    """
    model.requires_grad_(False)
    found = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in targets
    }
    if missing := sorted(set(targets) - {name.rpartition(".")[2] for name in found}):
        raise BadRequest(f"{type(model).__name__} has no linear layer {missing[0]}; take names such as q_proj.")
    made = {name: LowRankLinear(layer, rank, alpha / rank, generator) for name, layer in found.items()}
    for name, layer in made.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    return made


def write_adapter(folder: Path, layers: Mapping[str, LowRankLinear], base: str) -> None:
    """Write the layers, in float16, as an adapter for the model ``base``."""
    ranks = {(len(layer.a), layer.scale * len(layer.a)) for layer in layers.values()}
    ((rank, alpha),) = ranks  # PEFT's form has one for all, but for its patterns
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, layer in layers.items():
        for half, tensor in (("A", layer.a), ("B", layer.b)):
            tensors[f"{PREFIX}{name}.lora_{half}.weight"] = tensor.detach().to(torch.float16).contiguous()
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
