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
from pathlib import Path

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.models.cache_folder import ModelFolder, mark_version, need_space, writing
from kvorum.models.gguf_file import GGUFFile
from kvorum.models.progress import Progress
from kvorum.models.tensor_file import write_tensors


def convert(folder: ModelFolder, progress: Progress | None = None) -> Path:
    """The Hugging Face folder of `folder.gguf`, made if it is not there yet.

    Takes 4 bytes of memory and of disk for each weight, and about a minute for a billion weights.
    Raises `ModelFileError` (damaged file, disk, cache, another version) or `UnsupportedModel` (architecture).
    """

    def make(file: GGUFFile, target: Path) -> None:
        need_space(folder.path, file.weights * 4 + (64 << 20), f"Converting {folder.gguf.name}")
        _convert(file, target, progress or (lambda stage, done, total: None))

    return _made_once(folder, folder.hf, folder.converted, make, progress)


def describe(folder: ModelFolder, progress: Progress | None = None) -> Path:
    """A folder with the configuration and the tokenizer of `folder.gguf`, without weights, made if it is not there yet.

    Raises what `convert` raises.
    """

    def make(file: GGUFFile, target: Path) -> None:
        import transformers

        if progress is not None:
            progress("convert", 0, 100)
        with quiet_transformers(), _plain_refusals(file):
            config = transformers.AutoConfig.from_pretrained(
                file.path.parent, gguf_file=file.path.name, local_files_only=True
            )
        _save_tokenizer(file, target)
        config.to_json_file(target / "config.json")

    return _made_once(folder, folder.about, folder.described, make, progress)


def _made_once(
    folder: ModelFolder,
    path: Path,
    ready: Callable[[], bool],
    make: Callable[[GGUFFile, Path], None],
    progress: Progress | None,
) -> Path:
    """`path`, which `make` fills under another name the first time; it appears whole, whoever else is at it."""
    if ready():
        return path
    file = GGUFFile(folder.gguf)
    with writing(folder, progress) as work:
        if not ready():  # else another process was faster
            target = work / path.name
            target.mkdir()
            make(file, target)
            mark_version(target)
            if path.exists():  # someone took files out of it; a rename does not replace a full folder
                shutil.rmtree(path)
            os.replace(target, path)
    return path


def _save_tokenizer(file: GGUFFile, target: Path) -> None:
    import transformers

    with quiet_transformers(), _plain_refusals(file):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            file.path.parent, gguf_file=file.path.name, local_files_only=True
        )
    tokenizer.save_pretrained(target)
    _mend_tokenizer(target, str(file.metadata.get("tokenizer.ggml.pre", "")))


def _convert(file: GGUFFile, target: Path, progress: Progress) -> None:
    progress("convert", 0, 100)
    import torch
    import transformers

    unpacked = None
    if hasattr(transformers, "GgufConfig"):  # else newer versions may keep the blocks packed, if they find a kernel
        unpacked = transformers.GgufConfig(dequantize=True)
    with quiet_transformers(), _bars_to(progress), _plain_refusals(file):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            file.path.parent,
            gguf_file=file.path.name,
            local_files_only=True,
            dtype=torch.float32,
            quantization_config=unpacked,
        )
    progress("convert", 70, 100)
    _save_tokenizer(file, target)
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


@contextmanager
def _plain_refusals(file: GGUFFile) -> Iterator[None]:
    """transformers raises errors of many types for the same two causes; say which of the two it is."""
    try:
        yield
    except (MemoryError, ModelFileError):
        raise
    except ImportError as error:
        reason = f"Converting {file.path.name} needs a package that is missing: {error}."
        raise ModelFileError(reason) from error
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
def _bars_to(progress: Progress) -> Iterator[None]:
    """transformers draws the dequantising bar itself and cannot be told not to; take it off stderr."""
    with contextlib.redirect_stderr(_Bars(progress)):
        yield


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
