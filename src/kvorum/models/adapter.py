"""LoRA adapters in the form that PEFT writes, merged into a model's weights: W + scale * B A, computed in float32.

An adapter is a folder with ``adapter_config.json`` and ``adapter_model.safetensors``: for each matrix that it changes,
A ``[r, in]`` and B ``[out, r]``. What else the form can ask for (DoRA, biases, whole modules beside it, ranks by layer)
is refused by name, and so is a setting that is not known here, for what is left out of an adapter shows in no error,
only in what the model writes. Not covered: several adapters at a time, and taking one out of a model that is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.models.adapter_config import CONFIG, AdapterConfig, read_config
from kvorum.models.catalogue import CATALOGUE
from kvorum.models.finite import is_finite
from kvorum.models.gguf.metadata import listed
from kvorum.wording import first_line

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT writes before the name that a module has in its model."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """What is added to one matrix: ``scale`` times ``b [out, r] @ a [r, in]``."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def shape(self) -> list[int]:
        """Of the matrix: ``[out, in]``."""
        return [len(self.b), self.a.shape[1]]

    def added_to(self, weight: Tensor) -> Tensor:
        """The merged matrix, in the weight's dtype, computed in float32 or wider."""
        wide = torch.promote_types(weight.dtype, torch.float32)
        delta = self.b.to(weight.device, wide) @ self.a.to(weight.device, wide)
        return (weight.to(wide) + self.scale * delta).to(weight.dtype)


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter that was read. ``config``: its settings; ``sha256``: of both its files; ``changes``: by the names of
    linear layers."""

    folder: Path
    config: AdapterConfig
    sha256: str
    changes: Mapping[str, LowRank]

    def check(self, model: nn.Module, name: str) -> None:
        """Raises ModelFileError or UnsupportedModel unless all fits ``model``, which is called ``name``."""
        base = self.config.base
        made = f" (it was made for {base})" * bool(base)
        unfit = f"The adapter {self.folder} does not fit {name}{made}:"
        if {base, name} <= CATALOGUE.keys() and base != name:
            raise ModelFileError(f"The adapter {self.folder} was made for {base}, and the model is {name}.")
        linears = {key: module for key, module in model.named_modules() if isinstance(module, nn.Linear)}
        if unknown := sorted(self.changes.keys() - linears.keys()):
            raise ModelFileError(f"{unfit} there is no linear layer {listed(unknown)}.")
        shapes = {key: ([*linears[key].weight.shape], change.shape) for key, change in self.changes.items()}
        if misshapen := [f"{key} of {theirs} (not {ours})" for key, (ours, theirs) in shapes.items() if ours != theirs]:
            raise ModelFileError(f"{unfit} it changes {listed(misshapen)}.")
        meant = (key for key in linears if self.config.every and self.config.targets.fullmatch(key))
        if missing := [key for key in meant if key not in self.changes]:
            raise ModelFileError(f"{unfit} it has nothing for {listed(missing)}, which its target_modules name.")
        head, embedding = (getattr(model, f"get_{side}_embeddings")() for side in ("output", "input"))
        if any(linears[key] is head for key in self.changes) and head.weight is embedding.weight:
            raise UnsupportedModel(f"{unfit} it changes the output layer, which is the embedding as well.")

    def merge(self, model: nn.Module, name: str) -> None:
        """Add all changes to the weights of ``model``, and ``mark`` it. Raises as ``check``; nothing was changed."""
        self.check(model, name)
        with torch.no_grad():
            for key, change in self.changes.items():
                merged = change.added_to(model.get_parameter(f"{key}.weight"))  # which may be mapped from its file
                model.get_submodule(key).register_parameter("weight", nn.Parameter(merged, requires_grad=False))
        self.mark(model)

    def mark(self, model: nn.Module) -> None:
        """Let the model's configuration, and so its fingerprint, say which adapter is in its weights."""
        model.config.adapter_sha256 = self.sha256  # type: ignore[union-attr]

    def about(self) -> dict[str, Json]:
        """What a trace says of it."""
        return {"folder": str(self.folder), "sha256": self.sha256}


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's folder.

    Raises:
        ModelFileError: a file is missing, damaged, or does not fit the other. UnsupportedModel: it is more than LoRA.
    """
    folder = folder.expanduser()
    config = read_config(folder)
    rank, tensors, changes = config.rank, _read_weights(folder), dict[str, LowRank]()
    for key in sorted(key for key in tensors if key.endswith(".lora_A.weight")):
        name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        a, b = tensors.pop(key), tensors.pop(key.replace(".lora_A.", ".lora_B."), None)
        if b is None or a.ndim != 2 or b.ndim != 2 or len(a) != rank or b.shape[1] != rank:
            raise ModelFileError(f"The adapter {folder} is damaged: {name} has no A [{rank}, in] and B [out, {rank}].")
        if not config.targets.fullmatch(name):
            raise ModelFileError(f"The adapter {folder} changes {name}, which is not among its target_modules.")
        if not (is_finite(a) and is_finite(b)):
            raise ModelFileError(f"The adapter {folder} is damaged: {name} holds what is no finite number.")
        changes[name] = LowRank(a, b, config.scale)
    if tensors:
        raise UnsupportedModel(f"The adapter {folder} holds {listed(sorted(tensors))}, which is no part of LoRA.")
    if not changes:
        raise ModelFileError(f"The adapter {folder} changes nothing: {WEIGHTS} holds no matrices.")
    digest = hashlib.sha256((folder / CONFIG).read_bytes() + (folder / WEIGHTS).read_bytes()).hexdigest()
    return Adapter(folder, config, digest, changes)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = ", only pickled weights, which can run any code when loaded; save it as safetensors" * pickled
        raise ModelFileError(f"The adapter {folder} has no {WEIGHTS}{why}.")
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is cut short or damaged: {first_line(error)[:200]}.") from error
    if odd := [key for key, tensor in found.items() if not key.startswith(PREFIX) or not tensor.is_floating_point()]:
        raise ModelFileError(f"{path} is no adapter's: it holds {listed(odd)}.")
    return found
