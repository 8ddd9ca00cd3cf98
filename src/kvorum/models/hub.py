"""Fetching a model from the Hugging Face hub: safetensors and text files only, or one GGUF file.

huggingface_hub keeps its own cache, resumes and verifies; here its many errors become one sentence each.
"""

from __future__ import annotations

import logging
from pathlib import Path

from kvorum.errors import ModelFileError
from kvorum.models.cache_folder import shard_paths

_TEXT = ["*.json", "*.jinja", "*.txt", "*.model"]


def fetch_hub(name: str, *, trust_remote_code: bool = False, bars: bool = True) -> Path:
    """The local folder of the hub model `org/name`, or the local path of `org/name:file.gguf`.

    `bars`: the hub's own bars of progress are drawn. Never fetches pickled weights, and Python files only with
    `trust_remote_code`. Raises `ModelFileError`.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    repository, _, file = name.partition(":")
    nothing = f"The hub has no model {repository}, or you have no access to it, and no such folder is here."
    offline = f"HF_HUB_OFFLINE is set and {name} is not in the hub's local cache; unset it, or give a folder."
    unreached = f"The hub cannot be reached and {name} is not in its local cache; check the network, or give a folder."
    unreached = offline if constants.HF_HUB_OFFLINE else unreached
    sentences: dict[type[Exception], str] = {  # of an error's kinds the first counts
        errors.GatedRepoError: f"{repository} is gated: accept its terms on the hub and log in with `hf auth login`.",
        errors.RepositoryNotFoundError: nothing,
        errors.RevisionNotFoundError: nothing,
        errors.HFValidationError: nothing,
        errors.LocalEntryNotFoundError: unreached,
        errors.EntryNotFoundError: f"The hub's {repository} has no file {file}.",
        errors.OfflineModeIsEnabled: offline,
    }
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it logs each of its retries
    quiet = not bars and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        if file:
            shards = [str(path) for path in shard_paths(Path(file))]
            fetched = {shard: huggingface_hub.hf_hub_download(repository, shard) for shard in shards}
            return Path(fetched[file])
        wanted = ["*.safetensors", *_TEXT, *(["*.py"] if trust_remote_code else [])]
        left = ["*/*.safetensors", "*.bin", "*.pt", "*.pth"]
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=wanted, ignore_patterns=left))
    except Exception as error:  # the transport's own errors differ between versions of huggingface_hub
        reason = " ".join(str(error).split())[:160]
        unknown = f"{name} could not be fetched from the hub ({type(error).__name__}: {reason})."
        known = (sentence for kind, sentence in sentences.items() if isinstance(error, kind))
        raise ModelFileError(next(known, unknown)) from error
    finally:
        logger.setLevel(level)
        if quiet:
            enable_progress_bars()
