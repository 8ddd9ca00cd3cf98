"""Fast models on the CPU: the linear layers of a Hugging Face causal LM in packed weights.

Covers nn.Linear and an embedding tied to one. Not covered: experts kept as one tensor, layers whose inputs are no
multiple of 32 (they stay as they are), GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import nn

from kvorum.models.gguf.model import Source
from kvorum.models.packed.from_gguf import source_part
from kvorum.models.packed.layers import PackedEmbedding, PackedLinear, put
from kvorum.models.packed.matrix import GROUP, PackedMatrix, PackedPart, pack_weight
from kvorum.models.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quantize_model(
    model: PreTrainedModel, sources: Mapping[str, Source] | None = None, *, progress: Progress = silent
) -> None:
    """Replace the linear layers of `model` (a causal LM, float32, on the CPU) by `PackedLinear`, in place.

    With the `sources` of a GGUF file (`gguf.model`) the model has no weights yet and gets that file's, 4-bit blocks as
    they are; without, it is quantised from its own to 7 bits. An embedding tied to the output layer reads its packed
    rows, and one that the file has by itself reads the file's.
    """
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m.in_features % GROUP == 0}
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and embedding is not None and head.weight is embedding.weight
    name_of = {id(module): name for name, module in model.named_modules()}
    scale = _scale(embedding)

    def convert(name: str) -> PackedPart:
        linear = linears[name]
        if sources is None:
            return pack_weight(linear.weight, 7, linear.bias)
        bias = None if linear.bias is None else sources[f"{name}.bias"].values()
        return source_part(sources[f"{name_of[id(embedding)] if linear is head and tied else name}.weight"], bias)

    for done, (name, part) in enumerate(zip(linears, _in_threads(convert, linears), strict=True)):
        progress("pack", done, len(linears))
        put(model, name, PackedLinear(PackedMatrix([part])))
        if linears[name] is head and tied and scale is not None:
            model.set_input_embeddings(PackedEmbedding(part, scale))
    if sources is not None:
        if (
            not tied
            and scale is not None
            and isinstance(embedding, nn.Embedding)
            and embedding.embedding_dim % GROUP == 0
        ):
            rows = source_part(sources[f"{name_of[id(embedding)]}.weight"])
            model.set_input_embeddings(PackedEmbedding(rows, scale))
        for name, parameter in list(model.named_parameters()):
            if parameter.is_meta:
                put(model, name, nn.Parameter(sources[name].values(), requires_grad=False))
    progress("pack", len(linears), len(linears))


def _scale(embedding: nn.Module | None) -> float | None:
    """What the rows of an embedding are multiplied by; None: it does more than that, and is left as it is."""
    if type(embedding) is nn.Embedding:
        return 1.0
    scale = getattr(embedding, "scalar_embed_scale", None)
    return None if scale is None else float(scale)


def _in_threads(convert: Callable[[str], PackedPart], names: Iterable[str]) -> Iterator[PackedPart]:
    """`convert` over the layers, one thread a layer: many small steps, for which torch's own threads only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(convert, names)
    finally:
        torch.set_num_threads(threads)
