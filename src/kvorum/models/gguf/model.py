"""A GGUF file as a model of transformers: its configuration, and where each of its parameters comes from.

Everything in the file is accounted for before any work is done: each key of the metadata and each tensor is used, known
to have no effect, or refused by name (`UnsupportedModel`, `ModelFileError`), and so is what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.models.finite import require_finite
from kvorum.models.gguf.architectures import ARCHITECTURES, MIXTRAL, WHOLE, Architecture
from kvorum.models.gguf.file import GGUFFile, GGUFTensor
from kvorum.models.gguf.metadata import Metadata, listed
from kvorum.models.gguf.rope import FACTOR_TENSORS, rope_parameters
from kvorum.models.gguf.skeleton import configuration, skeleton
from kvorum.models.gguf.tokenizer import Vocabulary, read_vocabulary

_NAMED = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


@dataclass(frozen=True, eq=False)
class Source:
    """Where a parameter's values are in the file: one tensor, or several side by side; none stand for zeros.

    `order` (LongTensor [rows]): how the tensor's rows are taken. `shift` is added. `change`: what is made of the values
    at last.
    """

    tensors: tuple[GGUFTensor, ...]
    shape: tuple[int, ...]
    order: Tensor | None = None
    shift: float = 0.0
    change: Callable[[Tensor], Tensor] | None = None

    def values(self) -> Tensor:
        """The parameter in float32. Raises `ModelFileError`: something in it is no finite number."""
        if not self.tensors:
            return torch.zeros(self.shape)
        parts = [require_finite(tensor.name, tensor.dequantize()) for tensor in self.tensors]
        values = torch.cat(parts, -2 if len(parts) > 1 else 0)
        if self.order is not None:
            values = values[self.order]
        values = values.reshape(self.shape).add_(self.shift)
        return values if self.change is None else self.change(values)


@dataclass(frozen=True, eq=False)
class GGUFModel:
    """What `read_model` found."""

    file: GGUFFile
    config: Mapping[str, Json]
    """Of transformers, its `model_type` among it."""
    generation: Mapping[str, Json]
    vocabulary: Vocabulary
    sources: Mapping[str, Source]
    """By the parameter's name in the model of transformers; an output layer tied to the embedding is not among them."""
    ignored: tuple[str, ...]
    """Keys and tensors that are not known and were to be ignored."""


def read_model(file: GGUFFile, *, ignore_unknown: bool = False) -> GGUFModel:
    """The file as a model, everything in it accounted for; raises with the reason if that cannot be."""
    metadata = Metadata(file)
    kind = metadata.text("general.type")
    if kind not in (None, "model"):
        raise UnsupportedModel(f"{file.path} is no language model by itself: it says it is of type {kind!r}.")
    architecture = ARCHITECTURES.get(file.architecture)
    if architecture is None:
        raise UnsupportedModel(
            f"{file.path} holds a model of the architecture {file.architecture!r}, which is not read from a GGUF file; "
            f"those that are: {', '.join(sorted(ARCHITECTURES))}. Use a Hugging Face folder of the same model."
        )
    if file.architecture == "llama" and metadata.number("expert_count", 0):
        architecture = MIXTRAL
    config = _config(metadata, architecture, file.tensors)
    vocabulary = read_vocabulary(metadata, ignore_unknown=ignore_unknown)
    _check_tokens(file, vocabulary)
    config |= {name: vocabulary.ids.get(key) for name, key in _NAMED.items()}
    if "unknown" in vocabulary.ids:
        config["unk_token_id"] = vocabulary.ids["unknown"]
    ignored = metadata.unaccounted(ignore_unknown)
    sources, unused = _sources(file, architecture, config)
    if unused and not ignore_unknown:
        raise UnsupportedModel(
            f"{file.path} has tensors that are not known here for the architecture {file.architecture}: "
            f"{listed(unused)}; --ignore-unknown (ignore_unknown=True) runs it without."
        )
    return GGUFModel(file, config, _generation(vocabulary), vocabulary, sources, (*ignored, *unused))


def _config(metadata: Metadata, architecture: Architecture, tensors: Mapping[str, GGUFTensor]) -> dict[str, Json]:
    tied = "output.weight" not in tensors and not architecture.own_output
    config: dict[str, Json] = {"model_type": architecture.model_type, "tie_word_embeddings": tied}
    heads = metadata.count("attention.head_count")
    for key, name in WHOLE.items():
        config[name] = metadata.count(key, heads if key == "attention.head_count_kv" else None)
    config[architecture.epsilon[1]] = metadata.positive(architecture.epsilon[0])
    config["vocab_size"] = _rows(metadata, tensors)
    hidden = metadata.count("embedding_length")
    head = metadata.count("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "attention.key_length_swa", "attention.value_length_swa"):
        if metadata.count(key, head) != head:
            raise UnsupportedModel(f"{metadata.file.path} asks for another {metadata.prefix}{key} than {head}.")
    rotated = metadata.count("rope.dimension_count", head)
    if metadata.count("rope.dimension_count_swa", rotated) != rotated or rotated > head or rotated % 2:
        raise UnsupportedModel(f"{metadata.file.path} rotates {rotated} of {head} dimensions, which cannot be.")
    if rotated != head and not architecture.partial:
        raise UnsupportedModel(
            f"{metadata.file.path} rotates {rotated} of a head's {head} dimensions, which {architecture.model_type} "
            "models do not do."
        )
    if architecture.model_type != "qwen2" or head != hidden // heads:  # Qwen 2 has the field only where it differs
        config["head_dim"] = head
    rope = rope_parameters(metadata, tensors, rotated)
    if architecture.partial:
        rope["partial_rotary_factor"] = rotated / head
    config["rope_parameters"] = rope
    for name, parts in architecture.bias_fields.items():
        biased = {part for part in parts if any(tensor.endswith(f".{part}.bias") for tensor in tensors)}
        config[name] = bool(biased)
    config |= architecture.fixed
    if architecture.computed is not None:
        config |= architecture.computed(metadata, config)
    return config


def _rows(metadata: Metadata, tensors: Mapping[str, GGUFTensor]) -> int:
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(f"{metadata.file.path} cannot be run: its tensor token_embd.weight is missing.")
    return embedding.shape[0]


def _check_tokens(file: GGUFFile, vocabulary: Vocabulary) -> None:
    tokens, rows = len(vocabulary.tokens), file.tensors["token_embd.weight"].shape[0]
    if tokens != rows:
        raise ModelFileError(f"{file.path} cannot be run: it has {tokens} tokens and embeds {rows}.")


def _generation(vocabulary: Vocabulary) -> dict[str, Json]:
    ends = vocabulary.end_ids
    shared: dict[str, Json] = {"bos_token_id": vocabulary.ids.get("bos"), "pad_token_id": vocabulary.ids.get("padding")}
    return {**shared, "eos_token_id": ends[0] if len(ends) == 1 else ends or None}


def _sources(
    file: GGUFFile, architecture: Architecture, config: Mapping[str, Json]
) -> tuple[dict[str, Source], list[str]]:
    """Where each parameter comes from, and the tensors left over. Raises `ModelFileError`: one is missing."""
    model = skeleton(configuration(config))
    tied = set(model.all_tied_weights_keys)
    modules = {module: name for name, module in architecture.tensors.items()}
    used = set(FACTOR_TENSORS)
    sources: dict[str, Source] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    for name, parameter in model.named_parameters():
        if name in tied:
            continue
        layer, inner = _split(name)
        module, _, leaf = inner.rpartition(".")
        if inner in architecture.stacked:
            names = tuple(f"{layer}{part}.weight" for part in architecture.stacked[inner])
        elif module in modules:
            names = (f"{layer}{modules[module]}.{leaf}",)
        else:
            names = (f"{layer}{inner} (of {architecture.model_type} models)",)
        absent = [found for found in names if found not in file.tensors]
        if absent and leaf == "bias" and _is_nowhere(file, modules[module], architecture):
            names = ()
        elif absent:
            missing += absent
            continue
        used.update(names)
        tensors = tuple(file.tensors[found] for found in names)
        if tensors and not _fits([tensor.shape for tensor in tensors], tuple(parameter.shape)):
            misshapen += [f"{tensor.name} {list(tensor.shape)}" for tensor in tensors]
        shift = -1.0 if architecture.norms_plus_one and name.endswith("norm.weight") else 0.0
        order = _order(module, config, len(parameter)) if architecture.interleaved else None
        sources[name] = Source(tensors, tuple(parameter.shape), order, shift)
    if missing:
        raise ModelFileError(f"{file.path} cannot be run: tensors are missing: {listed(missing)}.")
    if misshapen:
        raise ModelFileError(
            f"{file.path} cannot be run: tensors have another shape than its metadata says: {listed(misshapen)}."
        )
    _refuse_types(file, used)
    return sources, [name for name in file.tensors if name not in used]


def _split(parameter: str) -> tuple[str, str]:
    """`blk.N.` of the file and the rest of the name, or nothing and the whole of it."""
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", parameter)
    return (f"blk.{found[1]}.", found[2]) if found else ("", parameter)


def _is_nowhere(file: GGUFFile, part: str, architecture: Architecture) -> bool:
    """Whether no layer has this bias, which then is zero; what some layers have and others not is missing."""
    optional = any(part in parts for parts in architecture.bias_fields.values())
    return optional and not any(name.endswith(f".{part}.bias") for name in file.tensors)


def _fits(found: list[tuple[int, ...]], wanted: tuple[int, ...]) -> bool:
    """Whether tensors of these shapes, side by side, are of the wanted one; dimensions of one do not count."""
    joined = sum(shape[-2] if len(shape) > 1 else 0 for shape in found)
    sides = {(*shape[:-2], joined, *shape[-1:]) for shape in found} if len(found) > 1 else {found[0]}
    plain = {tuple(size for size in side if size != 1) for side in sides}
    return plain == {tuple(size for size in wanted if size != 1)}


def _order(module: str, config: Mapping[str, Json], rows: int) -> Tensor | None:
    """The rows of q and k as the model has them: the file has the two halves of a rotated pair side by side."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(module.rpartition(".")[2])
    if heads is None:
        return None
    return torch.arange(rows).view(int(str(config[heads])), -1, 2).transpose(1, 2).reshape(-1)


def _refuse_types(file: GGUFFile, names: Iterable[str]) -> None:
    """Raise `UnsupportedModel` for tensors of a type that cannot be unpacked."""
    kinds: dict[str, str] = {}
    for name in names:
        if name in file.tensors:
            kinds.setdefault(file.tensors[name].type, name)
    refused = [f"{name} is of type {kind}" for kind, name in kinds.items() if not _unpacks(kind)]
    if refused:
        raise UnsupportedModel(f"{file.path} cannot be run: {listed(refused)}, which cannot be unpacked here.")


def _unpacks(kind: str) -> bool:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    block = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
    try:
        dequantize(np.zeros((1, block), np.uint8), GGMLQuantizationType[kind])
    except NotImplementedError:
        return False
    return True
