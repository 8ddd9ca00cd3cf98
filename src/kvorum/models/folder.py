"""A Hugging Face folder as a model: config.json and safetensors, everything in them accounted for.

transformers fills in what is missing with random weights and passes over what it does not know; here each tensor that
is missing, unexpected, of another shape, of a type that holds no weights, or tied where it must not be, is refused by
name. Pickled weights are refused. What config.json asks for is `config_fields`'.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.models.config_fields import account
from kvorum.models.finite import is_finite
from kvorum.models.gguf.metadata import listed
from kvorum.models.gguf.skeleton import quiet_transformers
from kvorum.wording import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tensors that a model has no place for and does not need, and why.
HARMLESS: Mapping[str, str] = {
    r"(.*\.)?rotary_emb\.inv_freq": "frequencies of old checkpoints; they follow from config.json",
    r"(.*\.)?(attn|attention)\.(masked_)?bias": "causal masks of old GPT-2 and GPT-NeoX checkpoints",
    r"(.*\.)?position_ids": "0, 1, 2, ... of old checkpoints",
    r"(.*\.)?mtp(_.*|\..*)?": "layers that draft further tokens, which are not used",
    r"v_head\..*": "a value head of training",
}
_WEIGHTS = ("F64", "F32", "F16", "BF16")


def load_folder(
    folder: Path, dtype: torch.dtype, trust_remote_code: bool, name: str, *, ignore_unknown: bool = False
) -> tuple[PreTrainedModel, list[str]]:
    """The causal LM of a folder, and the fields of its config.json that nobody here knows.

    Raises `ModelFileError` (what is missing, damaged, or does not fit together) or `UnsupportedModel` (what is not
    computed here); `name` is what the sentence calls the folder.
    """
    raw = _read_config(folder)
    keys = _check_weights(folder, name, raw)
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM

    broken = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError)
    refusals = (*broken, ImportError, StrictDataclassError)
    options = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": trust_remote_code}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read: {sentence(error)}.") from error
    except refusals as error:
        if absent := _missing_of_experts(keys):
            raise ModelFileError(f"{name} cannot be run: weights are missing: {listed(absent)}.") from error
        why = f"transformers cannot load {name} as a causal LM: {sentence(error)}."
        if "trust_remote_code" in str(error):
            why = f"{name} brings its own Python code, which is not run unless you ask for it with trust_remote_code."
        raise UnsupportedModel(why) from error
    model, found = loaded
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        # some versions of transformers take PyTorch's own attention for Gemma 2, which knows of no soft cap
        model.set_attn_implementation("eager")
    _refuse_unfit(model, found, name)
    if damaged := [key for key, weight in model.named_parameters() if not is_finite(weight.detach())]:
        raise ModelFileError(f"{name} cannot be run: weights hold what is no finite number: {listed(damaged)}.")
    if type(model).__module__.startswith("transformers_modules."):  # it reads its configuration as it likes
        return model, []
    try:
        return model, account(raw, model.config, type(model), ignore_unknown=ignore_unknown)
    except (ModelFileError, UnsupportedModel) as error:
        raise type(error)(f"{name} cannot be run: its {error}") from error


def _read_config(folder: Path) -> dict[str, Json]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelFileError(f"{folder} is no model folder: it has no config.json.")
    found = _read_json(path)
    texts = {path: found}
    if (generation := folder / "generation_config.json").is_file():  # transformers passes over one that it cannot read
        texts[generation] = _read_json(generation)
    for file, fields in texts.items():
        ends = fields.get("eos_token_id")
        if not all(_is_token(token) for token in (ends if isinstance(ends, list) else [] if ends is None else [ends])):
            raise ModelFileError(f"{file} is damaged: its eos_token_id must be the ids of tokens, and is {ends!r:.80}.")
    return found


def _is_token(found: Json) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= 0


def _read_json(path: Path) -> dict[str, Json]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: it is no JSON ({sentence(error)}).") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} is damaged: it holds no JSON object.")
    return found


def _check_weights(folder: Path, name: str, config: Mapping[str, Json]) -> set[str]:
    """The names of all weights. Raises `ModelFileError` unless their files are whole and hold each once."""
    seen: Counter[str] = Counter()
    for path in _weight_files(folder, name):
        try:
            with safe_open(path, framework="pt") as file:
                types = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelFileError(
                f"The weights in {path} are cut short or damaged ({sentence(error)}); "
                "remove that file, then fetch or convert the model again."
            ) from error
        seen.update(list(types))
        odd = [f"{key} is of type {kind}" for key, kind in types.items() if kind not in _WEIGHTS and not _harmless(key)]
        if odd and isinstance(config.get("quantization"), dict):  # which MLX alone writes
            raise UnsupportedModel(
                f"{name} is quantised for Apple's MLX, which is not read here ({listed(odd)}); "
                "take the model that it was made from, by its hub id or as a folder, or a GGUF file of that model."
            )
        if odd and "quantization_config" not in config:
            raise UnsupportedModel(
                f"{name} cannot be run: {listed(odd)}, and config.json has no quantization_config to read it by."
            )
    if twice := [key for key, count in seen.items() if count > 1]:
        raise ModelFileError(f"{name} cannot be run: {listed(twice)} stands in more than one of its files.")
    return set(seen)


def _missing_of_experts(keys: set[str]) -> list[str]:
    """What some experts have and others do not; transformers, which puts them together, does not say which it is."""
    parts = [found.groups() for key in keys if (found := re.fullmatch(r"(.+\.experts\.)(\d+)(\..+)", key))]
    experts, leaves = {part[:2] for part in parts}, {part[2] for part in parts}
    return sorted(name for expert in experts for leaf in leaves if (name := "".join((*expert, leaf))) not in keys)


def _weight_files(folder: Path, name: str) -> list[Path]:
    """The files that transformers takes: one, or those that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        files = _read_json(index).get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
            raise ModelFileError(f"{index} is damaged: it does not say which file has which tensor.")
        wanted = sorted({folder / str(file) for file in files.values()})
        if missing := [path.name for path in wanted if not path.is_file()]:
            raise ModelFileError(f"{name} cannot be run: {listed(missing)} is missing, which {index} names.")
        return wanted
    if others := sorted(folder.glob("*.safetensors")):
        raise ModelFileError(
            f"{name} has no model.safetensors and no model.safetensors.index.json, which says what {others[0].name} is."
        )
    pickled = [path.name for suffix in ("bin", "pt", "pth") for path in folder.glob(f"*.{suffix}")]
    if pickled:
        raise ModelFileError(
            f"{name} has only pickled weights ({pickled[0]}), which can run any code when loaded, "
            "and are refused; convert them to safetensors."
        )
    hint = "; name one of its GGUF files" if any(folder.glob("*.gguf")) else ""
    raise ModelFileError(f"{name} has no weights: no safetensors file is in {folder}{hint}.")


def _refuse_unfit(model: PreTrainedModel, found: Mapping[str, Any], name: str) -> None:
    """Raise `ModelFileError` for weights that were not in the files, not in the model, or in both and do not fit."""
    misshapen = [f"{key} {list(theirs)} (not {list(ours)})" for key, theirs, ours in sorted(found["mismatched_keys"])]
    unexpected = sorted(key for key in found["unexpected_keys"] if not _harmless(key))
    tied = model._tied_weights_keys if model.config.get_text_config().tie_word_embeddings else None
    untied = [
        f"{key}, which is another matrix than {source}"
        for key, source in (tied or {}).items()
        if model.get_parameter(key) is not model.get_parameter(source)
    ]
    for keys, what in (
        (misshapen, "weights have another shape than config.json says"),
        (sorted(found["missing_keys"]), "weights are missing"),
        (unexpected, f"{type(model).__name__} has no place for weights"),
        (untied, "config.json ties weights that are not the same"),
        (sorted(map(str, found.get("error_msgs", ()))), "weights could not be taken"),
    ):
        if keys:
            raise ModelFileError(f"{name} cannot be run: {what}: {listed(keys)}.")


def _harmless(key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in HARMLESS)


def sentence(error: BaseException) -> str:
    """The first line of an error's message, cut to a length that a person reads."""
    return first_line(error).rstrip(".: ")[:240]
