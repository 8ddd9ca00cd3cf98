"""From a name to an engine's backend on vLLM's workers: the folder, what is known of it without weights, the workers.

A catalogue name or a GGUF file is loaded from the folder that the exact mode makes of it, whose check against its file
is made as ever; a hub name from the folder that is fetched. Every refusal of the local backend that needs no weights is
made here, in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from kvorum.backends.local.backend import cache_dtype
from kvorum.backends.vllm import model_options
from kvorum.backends.vllm.backend import Described, VllmBackend
from kvorum.backends.vllm.environment import environment
from kvorum.backends.vllm.nodes import Head, Terms
from kvorum.backends.vllm.spread import Spread
from kvorum.backends.vllm.versions import check_version, installed, versions
from kvorum.backends.vllm.workers import Workers, configure
from kvorum.models import exactness
from kvorum.models.fingerprint import fingerprint, fingerprint_of_files
from kvorum.models.folder import load_folder
from kvorum.models.gguf.skeleton import bare, fill_buffers, quiet_transformers
from kvorum.models.layer_fit import frequencies
from kvorum.models.load import WholeFolder, find_folder, model_dtype
from kvorum.models.progress import Progress, silent
from kvorum.models.tokenizer import end_ids
from kvorum.wording import check_known, first_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

RUNNERS = ("auto", "generic", "graphs")
"""How ticks run: "auto" as captured graphs on GPUs, "generic" eagerly, "graphs" in buffers that stay, anywhere."""


class LoadedSpread(NamedTuple):
    """A backend whose workers run, and what goes with it."""

    backend: VllmBackend
    found: WholeFolder


def load_spread(
    name: str,
    spread: Spread,
    *,
    dtype: str | torch.dtype = "auto",
    kv_tokens: int | None = None,
    kv_dtype: str | torch.dtype = "auto",
    page_size: int = 16,
    attention: str = "auto",
    runner: str = "auto",
    trust_remote_code: bool = False,
    ignore_unknown: bool = False,
    accept_licence: bool = False,
    progress: Progress | None = None,
) -> LoadedSpread:
    """Start the workers of a model. The arguments are those of ``Engine.load``. ``kv_tokens``: None is as many as there
    is room for on GPUs, and 65536 on CPUs, whose memory is everybody's.

    Raises:
        UnknownName, ModelFileError, UnsupportedModel, BadRequest, MissingExtra, WorkersLost: each says what to do.
    """
    check_known("runner", runner, RUNNERS)
    version = check_version(installed(), untested=spread.untested_vllm)
    found = find_folder(
        name,
        trust_remote_code=trust_remote_code,
        ignore_unknown=ignore_unknown,
        accept_licence=accept_licence,
        progress=progress,
    )
    with environment(spread):
        device = _device()
        kind = model_dtype(dtype, device)
        stored = cache_dtype(kv_dtype, kind, device)
        model = describe(found, kind, spread)
        told = str(kind).removeprefix("torch.")
        head = _meet(found, told, spread, version, trust_remote_code, progress or silent) if spread.nodes > 1 else None
        try:
            config = configure(found, told, spread, trust_remote_code)
            workers = Workers(config, name, spread, head)
        except BaseException as error:
            if head is not None:
                head.end(first_line(error))
            raise
    try:
        backend = VllmBackend(
            workers,
            model,
            spread,
            version=version,
            kv_tokens=65536 if kv_tokens is None and device.type == "cpu" else kv_tokens,
            kv_dtype=stored,
            page_size=page_size,
            attention=attention,
            runner=runner,
        )
    except BaseException:
        workers.close()
        raise
    return LoadedSpread(backend, found)


def _meet(
    found: WholeFolder, dtype: str, spread: Spread, version: str, trust_remote_code: bool, report: Progress
) -> Head:
    """Wait for the further nodes, which are told all that they need."""
    terms: Terms = {
        "versions": versions(version),
        "model": found.name,
        "files": fingerprint_of_files(found.folder, ""),
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "spread": spread.options(),
    }
    head = Head(spread.master_addr, spread.master_port, spread.nodes, terms)
    try:
        head.wait(spread.patience, lambda here: report("nodes", here, spread.nodes - 1))
    except BaseException:
        head.end("The first node has stopped")
        raise
    return head


def _device() -> torch.device:
    """What vLLM was built for."""
    from vllm.platforms import current_platform

    return torch.device("cpu" if current_platform.is_cpu() else "cuda")


def describe(found: WholeFolder, dtype: torch.dtype, spread: Spread) -> Described:
    """What a folder says of its model. ``found.config`` is its configuration.

    Raises:
        UnsupportedModel: it cannot be exact over views, or vLLM computes it otherwise.
    """
    config = found.config
    text = config.get_text_config()
    model_options.refuse(found.name, text, spread.pipeline_parallel)
    model = bare(config)
    exactness.refuse_by_configuration(model, text)
    fill_buffers(model, saved=False)
    positions, tokens = exactness.limits(text)
    held = _held(config, spread)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return Described(
        name=found.name,
        frequencies=frequencies(model),
        kinds=tuple(getattr(text, "layer_types", None) or ()),
        window=getattr(text, "sliding_window", None),
        windows=model_options.windows(text),
        layers=int(text.num_hidden_layers),
        kv_heads=int(heads),
        far=exactness.farthest(positions, getattr(text, "max_position_embeddings", None)),
        max_positions=positions,
        max_tokens=tokens,
        trained=exactness.trained(text),
        ends=_ends(found.folder, model),
        dtype=dtype,
        fingerprint=lambda: _fingerprint(found, dtype, held),
        held=held,
    )


def _held(config: PretrainedConfig, spread: Spread) -> str:
    """ "exact", or the name of a quantised format."""
    own = getattr(config, "quantization_config", None)
    method = own.get("quant_method", "quantised") if isinstance(own, Mapping) else getattr(own, "quant_method", None)
    return str(spread.vllm.get("quantization") or method or "exact")


def _ends(folder: Path, model: PreTrainedModel) -> frozenset[int]:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        with quiet_transformers():
            model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return end_ids(model)


def _fingerprint(found: WholeFolder, dtype: torch.dtype, held: str) -> str:
    """The local backend's where the weights are what transformers loads; else one of the files."""
    if held != "exact":
        return fingerprint_of_files(found.folder, held)
    return fingerprint(load_folder(found.folder, dtype, False, found.name)[0])
