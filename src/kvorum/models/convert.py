"""Converting a GGUF file into a float32 Hugging Face folder, once.

transformers reads and dequantises the file, so the result is what transformers itself would run: the exact
mode's reference. Two things that its reading of a GGUF file loses are put back: the splitting of digits that
SmolLM's tokenizer does, and the Unicode normal form of Qwen's. The folder is built elsewhere and renamed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.models.cache_folder import ModelFolder, mark_version, need_space, writing
from kvorum.models.gguf_file import GGUFFile
from kvorum.models.progress import Progress, silent
from kvorum.models.tensor_file import write_tensors

T = TypeVar("T")


def convert(folder: ModelFolder, progress: Progress = silent, *, weights: bool = True) -> Path:
    """The Hugging Face folder of `folder.gguf`, made if it is not there yet; whoever else is at it, it appears whole.

    Without `weights` it is another folder, with the configuration and the tokenizer alone. Else it takes 4 bytes of
    memory and of disk for each weight, and about a minute for a billion weights.
    Raises `ModelFileError` (damaged file, disk, cache, another version) or `UnsupportedModel` (architecture).
    """
    path, ready = (folder.hf, folder.converted) if weights else (folder.about, folder.described)
    if ready():
        return path
    file = GGUFFile(folder.gguf)
    with writing(folder, progress) as work:
        if not ready():  # else another process was faster
            target = work / path.name
            target.mkdir()
            if weights:
                need_space(folder.path, file.weights * 4 + (64 << 20), f"Converting {file.path.name}")
                _convert(file, target, progress)
            else:
                _describe(file, target, progress)
            mark_version(target)
            if path.exists():  # someone took files out of it; a rename does not replace a full folder
                shutil.rmtree(path)
            os.replace(target, path)
    return path


def _describe(file: GGUFFile, target: Path, progress: Progress) -> None:
    import transformers

    progress("convert", 0, 100)
    config = _read(transformers.AutoConfig.from_pretrained, file, progress)
    _save_tokenizer(file, target, progress)
    config.to_json_file(target / "config.json")


def _convert(file: GGUFFile, target: Path, progress: Progress) -> None:
    progress("convert", 0, 100)
    import torch
    import transformers

    unpacked = None
    if hasattr(transformers, "GgufConfig"):  # else newer versions may keep the blocks packed, if they find a kernel
        unpacked = transformers.GgufConfig(dequantize=True)
    load = partial(transformers.AutoModelForCausalLM.from_pretrained, dtype=torch.float32, quantization_config=unpacked)
    model = _read(load, file, progress)
    progress("convert", 70, 100)
    _save_tokenizer(file, target, progress)
    progress("convert", 85, 100)
    tied = set(model.all_tied_weights_keys)
    weights = {key: value.contiguous() for key, value in model.state_dict().items() if key not in tied}
    write_tensors(target / "model.safetensors", weights, {"format": "pt"})
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config.to_json_file(target / "config.json")
    model.generation_config.save_pretrained(target)
    progress("convert", 100, 100)


def _save_tokenizer(file: GGUFFile, target: Path, progress: Progress) -> None:
    import transformers

    _read(transformers.AutoTokenizer.from_pretrained, file, progress).save_pretrained(target)
    _mend_tokenizer(target, str(file.metadata.get("tokenizer.ggml.pre", "")))


def _mend_tokenizer(target: Path, pre: str) -> None:
    """Put back what the GGUF route loses; `pre` is the pre-tokenizer's name in the GGUF file."""
    path = target / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    if pre == "smollm":
        digits = {"type": "Digits", "individual_digits": True}
        steps = [digits, tokenizer["pre_tokenizer"]]
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    elif pre == "qwen2" and not tokenizer.get("normalizer"):
        tokenizer["normalizer"] = {"type": "NFC"}
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _read(load: Callable[..., T], file: GGUFFile, progress: Progress) -> T:
    """What `load`, a `from_pretrained` of transformers, makes of the file.

    It raises errors of many types for the same two causes; here the sentence says which of the two it is.
    """
    try:
        # the dequantising bar is drawn whatever one says: it is taken off stderr
        with quiet_transformers(), contextlib.redirect_stderr(_Bars(progress)):
            return load(file.path.parent, gguf_file=file.path.name, local_files_only=True)
    except (MemoryError, ModelFileError):
        raise
    except ImportError as error:
        raise ModelFileError(f"Converting {file.path.name} needs a package that is missing: {error}.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's own refusal
            raise
        if "not supported" in str(error) or isinstance(error, NotImplementedError):
            raise UnsupportedModel(
                f"{file.path} holds a model of the architecture {file.architecture!r}, which transformers "
                "cannot read from a GGUF file; use a Hugging Face folder of the same model."
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"{file.path} is damaged or of an unknown kind ({type(error).__name__}: {reason}); fetch the file again."
        ) from error


class _Bars(io.StringIO):
    """A stream that reads the bars drawn on it: dequantising counts from 10 to 70 of 100."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def write(self, text: str) -> int:
        if "de-quantizing" in text and (found := re.search(r"(\d+)/(\d+)", text)):
            done, total = int(found[1]), int(found[2])
            self._progress("convert", 10 + 60 * done // max(1, total), 100)
        return len(text)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and no advice from transformers on the terminal; as it was before, afterwards."""
    import warnings

    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
