"""Converting a GGUF file into a Hugging Face folder, once: a configuration, a tokenizer and float32 weights.

What the folder holds is what `model` read, so everything in the file is accounted for before anything is written. The
folder is built elsewhere and renamed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kvorum.errors import UnsupportedModel
from kvorum.models.cache_folder import ModelFolder, ignored, mark_version, need_space, writing
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.gguf.metadata import listed
from kvorum.models.gguf.model import GGUFModel, read_model
from kvorum.models.gguf.skeleton import configuration, quiet_transformers
from kvorum.models.gguf.tokenizer import build_tokenizer
from kvorum.models.progress import Progress, silent
from kvorum.models.tensor_file import write_tensors


def convert(
    folder: ModelFolder, progress: Progress = silent, *, weights: bool = True, ignore_unknown: bool = False
) -> Path:
    """The Hugging Face folder of `folder.gguf`, made if it is not there yet; whoever else is at it, it appears whole.

    Without `weights` it is another folder, with the configuration and the tokenizer alone. Else it takes 4 bytes of
    memory and of disk for each weight, and about a minute for a billion weights.
    Raises `ModelFileError` (damaged file, disk, cache, another version) or `UnsupportedModel` (what the file asks for).
    """
    path, ready = (folder.hf, folder.converted) if weights else (folder.about, folder.described)
    if ready():
        unknown = ignored(path)
        if unknown and not ignore_unknown:
            raise UnsupportedModel(
                f"{folder.gguf} has what is not known here and may change what is computed: {listed(unknown)}; "
                "--ignore-unknown (ignore_unknown=True) runs it without."
            )
        return path
    model = read_model(GGUFFile(folder.gguf), ignore_unknown=ignore_unknown)
    progress("convert", 0, 100)
    with writing(folder, progress) as work:
        if not ready():  # else another process was faster
            target = work / path.name
            target.mkdir()
            if weights:
                need_space(folder.path, model.file.weights * 4 + (64 << 20), f"Converting {model.file.path.name}")
            _convert(model, target, progress, weights=weights)
            mark_version(target, model.ignored)
            if path.exists():  # of before files were accounted for; a rename does not replace a full folder
                shutil.rmtree(path)
            if not weights:
                shutil.rmtree(folder.packed, ignore_errors=True)  # made by what `about` said before
            os.replace(target, path)
    return path


def _convert(model: GGUFModel, target: Path, progress: Progress, *, weights: bool) -> None:
    from transformers import GenerationConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    with quiet_transformers():
        build_tokenizer(model.vocabulary).save_pretrained(target)
        GenerationConfig(**model.generation).save_pretrained(target)
        config = configuration(model.config)
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]]
        config.to_json_file(target / "config.json")
    if not weights:
        return
    tensors = {}
    for done, (name, source) in enumerate(model.sources.items()):
        progress("convert", 5 + 80 * done // len(model.sources), 100)
        tensors[name] = source.values().contiguous()
    write_tensors(target / "model.safetensors", tensors, {"format": "pt"})
    progress("convert", 100, 100)
