"""What an adapter's ``adapter_config.json`` says, in the form that PEFT writes: settings that are not read are refused.

Nothing heavy is imported here: commands ask at every start whether what they were given is an adapter's folder.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.wording import first_line

CONFIG = "adapter_config.json"
_FREE = frozenset(
    (
        *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "lora_dropout"),
        *("r", "lora_alpha", "use_rslora", "target_modules", "layers_to_transform", "layers_pattern"),
        *("exclude_modules", "megatron_core", "runtime_config", "eva_config", "qalora_group_size"),
    )
)
"""Settings that are read here, or that change nothing once an adapter is trained."""
_KNOWN: Mapping[str, tuple[Json, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}
"""The values that a setting may have; what is in neither table must be off: null, false, 0 or empty."""
_WHY = {
    "peft_type": "only LoRA is merged",
    "task_type": "only adapters of causal language models are",
    "bias": "trained biases are not merged",
    "lora_bias": "trained biases are not merged",
    "use_dora": "DoRA scales whole rows, which is not merged",
    "modules_to_save": "it brings whole modules of its own",
    "trainable_token_indices": "it brings embeddings of its own",
    "rank_pattern": "ranks by module are not read",
    "alpha_pattern": "scales by module are not read",
    "init_lora_weights": "it began by changing the model's own weights",
    "fan_in_fan_out": "it is for layers that hold their matrix turned round",
}


@dataclass(frozen=True, eq=False)
class AdapterConfig:
    """``base``: the model that the adapter was made for, if it says so. ``rank``, and ``scale``: what B A is multiplied
    by. ``targets``: the layers that are meant, by whole names. ``every``: whether each of them must be changed."""

    base: str
    rank: int
    scale: float
    targets: re.Pattern[str]
    every: bool


def read_config(folder: Path) -> AdapterConfig:
    """Read and check an adapter's settings.

    Raises:
        ModelFileError: the file is missing or damaged. UnsupportedModel: it asks for more than ``W + scale * B A``.
    """
    config = _read(folder)
    _refuse_unknown(folder, config)
    rank, scale = _rank_and_scale(folder, config)
    whole = not config.get("exclude_modules") and config.get("layers_to_transform") is None
    every = whole and config.get("target_modules") != "all-linear"  # which leaves out the output layer
    base = str(config.get("base_model_name_or_path") or "")
    return AdapterConfig(base, rank, scale, _targets(folder, config), every)


def named_base(name: str) -> str | None:
    """The model that an adapter's folder is for; None where ``name`` is no such folder, but a model.

    Raises:
        ModelFileError: it does not say which.
    """
    folder = Path(name).expanduser()
    if not (folder / CONFIG).is_file() or (folder / "config.json").is_file():
        return None
    base = _read(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelFileError(f"{folder} is an adapter that does not name its model; load that with adapter={folder}.")
    return base


def _read(folder: Path) -> dict[str, Json]:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelFileError(f"{folder} is no adapter: it has no {CONFIG}.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read: {first_line(error)[:200]}.") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} is damaged: it holds no JSON object.")
    return found


def _refuse_unknown(folder: Path, config: Mapping[str, Json]) -> None:
    """Raise UnsupportedModel for a setting that asks for more than ``W + scale * B A``."""
    for key, value in config.items():
        allowed = value in _KNOWN[key] if key in _KNOWN else key in _FREE or not value
        if not allowed:
            why = _WHY.get(key, "which is not known here and may change what is computed")
            raise UnsupportedModel(f"The adapter {folder} cannot be merged: {key} is {json.dumps(value):.80}; {why}.")
    if "peft_type" not in config:
        raise ModelFileError(f"{folder / CONFIG} is damaged: it does not say its peft_type.")


def _rank_and_scale(folder: Path, config: Mapping[str, Json]) -> tuple[int, float]:
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ModelFileError(f"{folder / CONFIG} is damaged: r is {rank!r:.40} and lora_alpha {alpha!r:.40}.")
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _targets(folder: Path, config: Mapping[str, Json]) -> re.Pattern[str]:
    """Which layers are meant: a list of names or their ends, or one pattern for whole names, as PEFT reads them."""
    given = config.get("target_modules")
    if given == "all-linear":
        return re.compile(r".*")
    try:
        if isinstance(given, str):
            return re.compile(given)
        if isinstance(given, list) and given and all(isinstance(name, str) for name in given):
            return re.compile(rf"(.*\.)?({'|'.join(re.escape(str(name)) for name in given)})")
    except re.error:
        pass
    raise ModelFileError(f"{folder / CONFIG} is damaged: target_modules is {given!r:.80}.")
