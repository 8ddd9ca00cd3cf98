"""Fast models on the CPU: the linear layers of a Hugging Face causal LM in packed weights.

Covers nn.Linear and an embedding tied to one. Not covered: experts kept as one tensor, layers whose inputs are no
multiple of 32 (they stay as they are), GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import nn

from kvorum.models.gguf_weights import GGUFWeights, refuse_meta
from kvorum.models.packed import GROUP, Packed, Part, pack_weight
from kvorum.models.packed_layers import PackedEmbedding, PackedLinear, put
from kvorum.models.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quantize_model(
    model: PreTrainedModel,
    gguf: str | os.PathLike[str] | None = None,
    *,
    bits: int = 7,
    progress: Progress | None = None,
) -> None:
    """Replace the linear layers of `model` (a causal LM, float32, on the CPU) by `PackedLinear`, in place.

    With `gguf`, the weights are those of that file, which must be the same model (see `takes_over`); what it lacks,
    and everything without it, is quantised from the module to `bits` 4 or 7. An embedding tied to the output layer
    reads its packed rows, and one that the file has reads the file's. With `gguf` the model may be on the meta device:
    it is filled from the file. Raises `UnsupportedModel` or `ModelFileError`.
    """
    file = None if gguf is None else GGUFWeights(gguf, model.config)
    todo = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    todo = [(name, m) for name, m in todo if m.in_features % GROUP == 0]
    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings()
    tied = head is not None and embedding is not None and head.weight is embedding.weight

    def convert(item: tuple[str, nn.Linear]) -> Part:
        name, linear = item
        shape = (linear.in_features, linear.out_features)
        part = None if file is None else file.part(name, shape, linear.bias)
        if part is None:
            refuse_meta(name, linear.weight)
            part = pack_weight(linear.weight, bits, linear.bias)
        return part

    for done, ((name, linear), part) in enumerate(zip(todo, _in_threads(convert, todo), strict=True)):
        if progress is not None:
            progress("pack", done, len(todo))
        put(model, name, PackedLinear(Packed([part])))
        if linear is head and tied:
            model.set_input_embeddings(PackedEmbedding(part))
    if file is not None:
        if isinstance(embedding, nn.Embedding) and file.untied and embedding.embedding_dim % GROUP == 0:
            name = next(name for name, module in model.named_modules() if module is embedding)
            rows = file.part(name, (embedding.embedding_dim, embedding.num_embeddings))
            if rows is not None:
                model.set_input_embeddings(PackedEmbedding(rows))
        _fill(model, file)
    if progress is not None:
        progress("pack", len(todo), len(todo))


def _fill(model: PreTrainedModel, file: GGUFWeights) -> None:
    """Give every parameter and buffer of `model` that is on the meta device its values."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if any(buffer.is_meta for buffer in child.buffers(recurse=False)):  # frequencies, a function of the model
                setattr(module, name, type(child)(config=model.config))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            parent, _, leaf = name.rpartition(".")
            values = file.values(parent, leaf)
            if values is None or values.shape != parameter.shape:
                refuse_meta(name, parameter)
            else:
                put(model, name, nn.Parameter(values, requires_grad=False))


def _in_threads(convert: Callable[[tuple[str, nn.Linear]], Part], todo: list[tuple[str, nn.Linear]]) -> Iterator[Part]:
    """`convert` over the layers, one thread a layer: many small steps, for which torch's own threads only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(convert, todo)
    finally:
        torch.set_num_threads(threads)
