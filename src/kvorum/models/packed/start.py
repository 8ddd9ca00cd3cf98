"""What a packed model's first load found out, kept, so that later starts need neither transformers nor a probe.

It stands beside the packed weights and goes with them: configuration, shape with its rotations, fingerprint, end
tokens, and what the tokenizer says besides its compiled part. It is made anew where kvorum, transformers, tokenizers or
torch are of another version than those that it was made with. Only models that the lean runner covers have one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from tokenizers import Tokenizer as Compiled

from kvorum.attention.rotary import Rotary, Style
from kvorum.jsontypes import Json
from kvorum.models.cache_folder import ModelFolder
from kvorum.models.fingerprint import fingerprint
from kvorum.models.light_tokenizer import LightTokenizer, Spelling
from kvorum.models.packed.bare_model import BareModel
from kvorum.models.shape import LayerShape, ModelShape
from kvorum.models.tokenizer import end_ids
from kvorum.versions import installed_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FORM = 1


class _Rotation(TypedDict):
    style: Style
    start: int
    inv_freq: list[float]
    dtype: str


class _Shape(TypedDict):
    rotaries: list[_Rotation]
    layers: list[tuple[int, int, int, int, int, int | None]]
    vocab: int
    hidden: int
    max_positions: int | None
    max_tokens: int | None
    trained: int | None


class _Spelling(TypedDict):
    names: dict[str, str]
    special: list[int]
    end: int | None
    template: str | dict[str, str] | None
    cleans: bool


class _Record(TypedDict):
    made_with: list[Json]
    config: dict[str, Json]
    ends: list[int]
    attention_scaling: float
    shape: _Shape
    fingerprint: str
    tokenizer: _Spelling


START = "start.json"
"""The record's name, beside the packed weights."""


def start_file(folder: ModelFolder) -> Path:
    """Where a model's record stands."""
    return folder.packed / START


def fits(folder: ModelFolder) -> bool:
    """Whether there is a record, made with what is installed here."""
    return _read(folder) is not None


def keep_start(
    folder: ModelFolder, work: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Path | None:
    """Write down what ``model``, as it was loaded from ``folder``, and its tokenizer are; None where that cannot be.

    ``work`` is a folder on the same disk, whose lock the caller holds.
    Raises UnsupportedModel: kvorum cannot be exact on it.
    """
    from kvorum.models.probe import probe

    compiled = Compiled.from_file(str(folder.about / "tokenizer.json"))
    if compiled.to_str() != tokenizer.backend_tokenizer.to_str():
        return None  # transformers makes more of the file than the file says
    scaling = getattr(getattr(model.get_decoder(), "rotary_emb", None), "attention_scaling", 1.0)
    record = {
        "made_with": _made_with(),
        "config": model.config.to_dict(),
        "ends": sorted(end_ids(model)),
        "attention_scaling": float(scaling),
        "shape": _shape_to_json(probe(model)),
        "fingerprint": fingerprint(model),
        "tokenizer": asdict(Spelling.of(tokenizer)),
    }
    try:
        (work / START).write_text(json.dumps(record), encoding="utf-8")
    except (TypeError, ValueError):  # a configuration beyond JSON
        return None
    os.replace(work / START, start_file(folder))
    return start_file(folder)


def read_start(
    folder: ModelFolder,
    weights: Path,
    *,
    model: Callable[[], PreTrainedModel],
    tokenizer: Callable[[], PreTrainedTokenizerBase | None],
) -> tuple[BareModel, LightTokenizer] | None:
    """The model over ``weights``, and its tokenizer, by the record; None where there is none that fits.

    ``model`` and ``tokenizer`` load those of transformers, should somebody ask for them.
    Raises `ModelFileError`: the weights are damaged.
    """
    record = _read(folder)
    if record is None:
        return None
    spelling, shape = Spelling(**record["tokenizer"]), _shape_of_json(record["shape"])
    bare = BareModel(
        weights,
        config=record["config"],
        ends=record["ends"],
        attention_scaling=record["attention_scaling"],
        shape=shape,
        fingerprint=record["fingerprint"],
        load=model,
    )
    return bare, LightTokenizer.read(folder.about / "tokenizer.json", spelling, tokenizer)


def _read(folder: ModelFolder) -> _Record | None:
    try:
        record: _Record = json.loads(start_file(folder).read_text(encoding="utf-8"))
        return record if record["made_with"] == _made_with() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _made_with() -> list[Json]:
    return [_FORM, *(installed_version(package) for package in ("kvorum", "transformers", "tokenizers", "torch"))]


def _shape_to_json(shape: ModelShape) -> _Shape:
    rotaries: list[Rotary] = []
    layers = []
    for layer in shape.layers:
        if not any(known is layer.rotary for known in rotaries):
            rotaries.append(layer.rotary)
        at = next(index for index, known in enumerate(rotaries) if known is layer.rotary)
        layers.append((at, layer.q_heads, layer.kv_heads, layer.k_dim, layer.v_dim, layer.window))
    return {
        "rotaries": [
            {
                "style": rotary.style,
                "start": rotary.start,
                "inv_freq": rotary.inv_freq.tolist(),  # float32 and float64 come back with the same bits
                "dtype": str(rotary.inv_freq.dtype).removeprefix("torch."),
            }
            for rotary in rotaries
        ],
        "layers": layers,
        "vocab": shape.vocab,
        "hidden": shape.hidden,
        "max_positions": shape.max_positions,
        "max_tokens": shape.max_tokens,
        "trained": shape.trained,
    }


def _shape_of_json(kept: _Shape) -> ModelShape:
    rotaries = [
        Rotary(one["style"], one["start"], torch.tensor(one["inv_freq"], dtype=getattr(torch, one["dtype"])))
        for one in kept["rotaries"]
    ]
    layers = tuple(
        LayerShape(rotaries[at], q_heads, kv_heads, k_dim, v_dim, window)
        for at, q_heads, kv_heads, k_dim, v_dim, window in kept["layers"]
    )
    lengths = kept["max_positions"], kept["max_tokens"], kept["trained"]
    return ModelShape(layers, kept["vocab"], kept["hidden"], *lengths)
