"""Fast models on the CPU: the linear layers of a Hugging Face causal LM in packed weights.

Covers nn.Linear and an embedding tied to one. Not covered: experts kept as one tensor, layers whose inputs are no
multiple of 32 (they stay as they are), GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import nn

from kvorum.models.packed.from_gguf import GGUFWeights
from kvorum.models.packed.layers import PackedEmbedding, PackedLinear, put
from kvorum.models.packed.matrix import GROUP, PackedMatrix, PackedPart, pack_weight
from kvorum.models.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quantize_model(
    model: PreTrainedModel, gguf: str | os.PathLike[str] | None = None, *, progress: Progress = silent
) -> None:
    """Replace the linear layers of `model` (a causal LM, float32, on the CPU) by `PackedLinear`, in place.

    With `gguf`, the weights are those of that file, which must be the same model (see `takes_over`); what it lacks,
    and everything without it, is quantised from the module to 7 bits. An embedding tied to the output layer reads its
    packed rows, and one that the file has reads the file's. With `gguf` the model may be on the meta device: it is
    filled from the file. Raises `UnsupportedModel` or `ModelFileError`.
    """
    file = None if gguf is None else GGUFWeights(gguf, model.config)
    modules = model.named_modules()
    linears = {name: m for name, m in modules if isinstance(m, nn.Linear) and m.in_features % GROUP == 0}
    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings()
    tied = head is not None and embedding is not None and head.weight is embedding.weight

    def convert(name: str) -> PackedPart:
        weight, bias = linears[name].weight, linears[name].bias
        part = None if file is None else file.part(name, weight, bias)
        return pack_weight(weight, 7, bias) if part is None else part

    for done, (name, part) in enumerate(zip(linears, _in_threads(convert, linears), strict=True)):
        progress("pack", done, len(linears))
        put(model, name, PackedLinear(PackedMatrix([part])))
        if linears[name] is head and tied:
            model.set_input_embeddings(PackedEmbedding(part))
    if file is not None:
        if isinstance(embedding, nn.Embedding) and file.untied and embedding.embedding_dim % GROUP == 0:
            name = next(name for name, module in model.named_modules() if module is embedding)
            rows = file.part(name, embedding.weight)
            if rows is not None:
                model.set_input_embeddings(PackedEmbedding(rows))
        _fill(model, file)
    progress("pack", len(linears), len(linears))


def _fill(model: PreTrainedModel, file: GGUFWeights) -> None:
    """Give every parameter and buffer of `model` that is on the meta device its values."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if any(buffer.is_meta for buffer in child.buffers(recurse=False)):  # frequencies, a function of the model
                setattr(module, name, type(child)(config=model.config))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            put(model, name, nn.Parameter(file.values(name, parameter), requires_grad=False))


def _in_threads(convert: Callable[[str], PackedPart], names: Iterable[str]) -> Iterator[PackedPart]:
    """`convert` over the layers, one thread a layer: many small steps, for which torch's own threads only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(convert, names)
    finally:
        torch.set_num_threads(threads)
