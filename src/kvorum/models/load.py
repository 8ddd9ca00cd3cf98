"""From a name to a model that runs: catalogue name, folder, GGUF file or hub id.

Weights are memory-mapped from safetensors; pickled weights are refused. A GGUF file is converted once
(`convert`) and mapped afterwards, so a later load costs what transformers needs to build the modules.
Packed weights for the native kernels are made once too (`quantize`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kvorum.errors import BadRequest, ModelFileError, UnsupportedModel
from kvorum.models.adapter import Adapter, read_adapter
from kvorum.models.adapter_config import named_base
from kvorum.models.cache_folder import (
    ModelFolder,
    dropping,
    entry_folder,
    gguf_folder,
    ignored,
    kept_checks,
)
from kvorum.models.catalogue import Entry, locate
from kvorum.models.checksums import verify
from kvorum.models.folder import load_folder, sentence
from kvorum.models.gguf.convert import convert
from kvorum.models.gguf.skeleton import quiet_transformers
from kvorum.models.hub import fetch_hub
from kvorum.models.light_tokenizer import LightTokenizer
from kvorum.models.packed.bare_model import BareModel
from kvorum.models.packed.of_file import described, pack_kept, pack_merged, packed_file, record_start
from kvorum.models.packed.quantize import quantize_model
from kvorum.models.packed.start import fits, read_start, start_file
from kvorum.models.progress import Progress, silent
from kvorum.models.pull import pull
from kvorum.models.runners.lean import covers
from kvorum.models.selfcheck import check_once

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to run."""

    model: PreTrainedModel  # in eval mode, without gradients
    tokenizer: PreTrainedTokenizerBase | None  # None if the folder has none
    name: str  # as asked for
    source: Path  # the Hugging Face folder that was loaded
    gguf: Path | None  # the GGUF file that it was made of
    unused: tuple[str, ...] = ()  # fields of config.json, or keys and tensors of a GGUF file, that are not known here
    adapter: Adapter | None = None  # what was merged into its weights


def load_model(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    packed: bool = False,
    adapter: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
    ignore_unknown: bool = False,
    accept_licence: bool = False,
    progress: Progress | None = None,
) -> Loaded:
    """Load a causal LM by catalogue name, folder, GGUF file or hub id (`org/name`, `org/name:file.gguf`).

    What exists as a path is a path; then a catalogue name; then a hub id. "auto" is float32 on the CPU and on Apple's
    GPU, bfloat16 elsewhere. A catalogue model that is not here yet is pulled. With `packed`, the linear layers are in
    packed weights (`quantize`), a GGUF file's own where it has them, kept in the cache. The folder `adapter` is merged
    into the weights, before they are packed; an adapter's folder as a name is the model that it names, with itself.
    What is not known of a GGUF file is refused, or ignored with `ignore_unknown`. A licence that must be accepted is
    with `accept_licence`. A GGUF file's first load compares the model with its file (`selfcheck`). Raises
    `UnknownName`, `ModelFileError`, `UnsupportedModel`, or `BadRequest` for a dtype that is none, or two adapters.
    """
    asked = name = os.fspath(name_or_path)
    if (base := named_base(name)) is not None:
        if adapter is not None:
            raise BadRequest(f"{name} is an adapter itself; give the model that both are for, and one of them.")
        name, adapter = base, name
    merged = None if adapter is None else read_adapter(Path(adapter))
    device = torch.device(device)
    kind = model_dtype(dtype, device)
    report = progress or silent
    source, folder = _locate(name, trust_remote_code, accept_licence, report), None
    if isinstance(source, ModelFolder):
        folder = source
        source = _converted(folder, report, weights=not packed, ignore_unknown=ignore_unknown)
    if packed and folder is not None:
        with dropping(*(() if kept_checks(source) else (source,))):
            if merged is None:
                model = pack_kept(folder, report, ignore_unknown)
            else:
                model = pack_merged(merged, name, folder, report, ignore_unknown)
    else:
        model, unused = load_folder(
            source, torch.float32 if packed else kind, trust_remote_code, name, ignore_unknown=ignore_unknown
        )
        if packed and merged is not None:
            merged.merge(model, name)
        if packed:
            quantize_model(model, progress=report)
    tokenizer = _load_tokenizer(source, trust_remote_code, converted=folder is not None)
    if folder is not None:
        unused = ignored(source)
    model.eval().requires_grad_(False)
    if folder is not None and tokenizer is not None and not (packed and merged):  # which its file says nothing of
        check_once(model, tokenizer, folder, source, report)
        if packed and covers(model) and not fits(folder):
            record_start(folder, model, tokenizer, report)
    if merged is not None and not packed:
        merged.merge(model, name)
    model.to(device)  # type: ignore[arg-type]
    gguf = None if folder is None else folder.gguf
    return Loaded(model, tokenizer, asked, source, gguf, tuple(unused), merged)


@dataclass(frozen=True, eq=False)
class WholeFolder:
    """A model's folder with whole weights, for a program that loads them itself."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase | None
    name: str  # as asked for
    config: PretrainedConfig
    unused: tuple[str, ...]


def find_folder(
    name_or_path: str | os.PathLike[str],
    *,
    trust_remote_code: bool = False,
    ignore_unknown: bool = False,
    accept_licence: bool = False,
    progress: Progress | None = None,
) -> WholeFolder:
    """The folder that `load_model` would load without `packed`; what is not here is fetched and converted first.

    A conversion is compared with its file as there (`selfcheck`), unless that was done. Raises as `load_model`.
    """
    from transformers import AutoConfig

    name, report = os.fspath(name_or_path), progress or silent
    if named_base(name) is not None:
        raise UnsupportedModel(f"{name} is an adapter, which the local backend alone merges; take its model.")
    source = _locate(name, trust_remote_code, accept_licence, report)
    unused: list[str] = []
    converted = isinstance(source, ModelFolder)
    if isinstance(source, ModelFolder):
        folder, source = source, _converted(source, report, weights=True, ignore_unknown=ignore_unknown)
        if "float32" not in kept_checks(source):
            load_model(name, dtype=torch.float32, ignore_unknown=ignore_unknown, progress=progress)
        unused = ignored(folder.hf)
    tokenizer = _load_tokenizer(source, trust_remote_code, converted=converted)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{name} cannot be read: {sentence(error)}.") from error
    return WholeFolder(source, tokenizer, name, config, tuple(unused))


@dataclass(frozen=True, eq=False)
class LoadedBare:
    """As ``Loaded``, without transformers."""

    model: BareModel
    tokenizer: LightTokenizer
    name: str
    unused: tuple[str, ...]
    adapter: None = None  # merged weights are not kept


def load_bare(
    name_or_path: str | os.PathLike[str], *, ignore_unknown: bool = False, progress: Progress | None = None
) -> LoadedBare | None:
    """A GGUF file's model in packed weights as ``load_model`` kept it before; None where it did not.

    Raises `UnknownName`, `ModelFileError`: it is damaged. `UnsupportedModel`: unknown parts were ignored before.
    """
    name = os.fspath(name_or_path)
    found = locate(name)
    if found is None or (isinstance(found, Path) and not found.is_file()):
        return None
    folder = entry_folder(found) if isinstance(found, Entry) else gguf_folder(found)
    weights, kept = packed_file(folder), start_file(folder)
    if not (weights.is_file() and kept.is_file() and folder.gguf.is_file() and folder.described()):
        return None
    if "packed" not in kept_checks(folder.about):  # the comparison with its file was not made
        return None
    _converted(folder, progress or silent, weights=False, ignore_unknown=ignore_unknown)
    verify(folder.about, weights, kept)
    tokenizer = partial(_load_tokenizer, folder.about, False, converted=True)
    started = read_start(folder, weights, model=partial(described, folder.about), tokenizer=tokenizer)
    return None if started is None else LoadedBare(*started, name, tuple(ignored(folder.about)))


def _locate(name: str, trust_remote_code: bool, accept_licence: bool, progress: Progress) -> ModelFolder | Path:
    """The cache folder of a GGUF file, or the path of a Hugging Face folder; what is not here yet is fetched."""
    found = locate(name)
    if isinstance(found, Entry):
        folder = entry_folder(found)
        if not folder.converted():
            pull(found, progress, accept_licence=accept_licence)
        return folder
    path = found or fetch_hub(name, trust_remote_code=trust_remote_code, bars=progress is not silent)
    return path if path.is_dir() else gguf_folder(path)


def _converted(folder: ModelFolder, progress: Progress, *, weights: bool, ignore_unknown: bool) -> Path:
    """The conversion of a GGUF file, which is as it was written."""
    source = convert(folder, progress, weights=weights, ignore_unknown=ignore_unknown)
    texts = (path for path in source.iterdir() if path.suffix in (".json", ".jinja") and path.name != "kvorum.json")
    verify(source, *sorted(texts), *source.glob("*.safetensors"))
    return source


def _load_tokenizer(folder: Path, trust_remote_code: bool, *, converted: bool) -> PreTrainedTokenizerBase | None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind = PreTrainedTokenizerFast if converted else AutoTokenizer
    if not (folder / "tokenizer_config.json").is_file() and not (folder / "tokenizer.json").is_file():
        return None
    try:
        with quiet_transformers():
            return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelFileError(f"The tokenizer in {folder} cannot be read: {sentence(error)}.") from error


def model_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """What a model computes in; "auto" is bfloat16 on NVIDIA's GPUs, else float32. Raises `BadRequest`: it is none."""
    if dtype == "auto":
        return torch.float32 if device.type in ("cpu", "mps") else torch.bfloat16
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise BadRequest(f"{dtype} is no dtype for a model; take auto, float32, bfloat16, float16 or float64.")
    return kind
