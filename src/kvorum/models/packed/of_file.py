"""A GGUF file's model in packed weights: from the cache, made of the file and kept there, or with an adapter in it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.errors import ModelFileError
from kvorum.models.adapter import Adapter
from kvorum.models.cache_folder import ModelFolder, writing
from kvorum.models.checksums import record, verify
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.gguf.model import read_model
from kvorum.models.gguf.skeleton import quiet_transformers, skeleton
from kvorum.models.packed.layers import load_packed, save_packed
from kvorum.models.packed.quantize import quantize_model
from kvorum.models.packed.start import START, fits, keep_start
from kvorum.models.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def packed_file(folder: ModelFolder) -> Path:
    """Where a file's packed weights are kept."""
    return folder.packed / "weights.safetensors"


def pack_kept(folder: ModelFolder, progress: Progress, ignore_unknown: bool) -> PreTrainedModel:
    """The model in packed weights: from the cache, or made of the file and kept there."""
    kept = packed_file(folder)
    if (found := _load_kept(folder.about, kept)) is not None:
        return found
    with writing(folder, progress) as work:
        if (found := _load_kept(folder.about, kept)) is not None:  # another process was faster
            return found
        model = described(folder.about)
        file = read_model(GGUFFile(folder.gguf), ignore_unknown=ignore_unknown)
        quantize_model(model, file.sources, progress=progress)
        save_packed(model, work / kept.name)
        kept.parent.mkdir(exist_ok=True)
        os.replace(work / kept.name, kept)
        record(folder.about, kept)
    return model


def pack_merged(
    adapter: Adapter, name: str, folder: ModelFolder, progress: Progress, ignore_unknown: bool
) -> PreTrainedModel:
    """The model, called ``name``, in packed weights; those that ``adapter`` changes are merged, then packed, at each
    load. Raises as ``Adapter.check``."""
    model = described(folder.about)
    adapter.check(model, name)
    sources = dict(read_model(GGUFFile(folder.gguf), ignore_unknown=ignore_unknown).sources)
    for key, change in adapter.changes.items():
        sources[f"{key}.weight"] = replace(sources[f"{key}.weight"], change=change.added_to)
    quantize_model(model, sources, progress=progress)
    adapter.mark(model)
    return model


def _load_kept(about: Path, kept: Path) -> PreTrainedModel | None:
    """The model with the packed weights in ``kept``; None where there are none. Raises `ModelFileError`: damaged."""
    if not kept.is_file():
        return None
    verify(about, *(file for file in (kept, kept.with_name(START)) if file.is_file()))
    model = described(about)
    load_packed(model, kept)
    return model


def described(about: Path) -> PreTrainedModel:
    """The model of a folder's configuration, without weights."""
    from transformers import AutoConfig, GenerationConfig

    with quiet_transformers():
        model = skeleton(AutoConfig.from_pretrained(about, local_files_only=True))
        model.generation_config = GenerationConfig.from_pretrained(about, local_files_only=True)
    return model


def record_start(
    folder: ModelFolder, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, progress: Progress
) -> None:
    """Keep what was found out, for later starts; where the cache cannot be written, they find it out again."""
    with suppress(ModelFileError), writing(folder, progress) as work:
        if not fits(folder) and (made := keep_start(folder, work, model, tokenizer)) is not None:
            record(folder.about, made)
