"""Fast models on the CPU: the linear layers of a Hugging Face causal LM in packed weights.

`quantize_model` takes the weights from a GGUF file, whose 4-bit blocks (Q4_0, Q4_1, Q4_K) are used as they are
and whose other types are brought to 7 bits, or quantises those that the model holds. `save_packed` and
`load_packed` keep the result, so that a later start converts nothing. Formats, products and twins: `packed`.

Covers nn.Linear and an embedding tied to one. Not covered: experts kept as one tensor, layers whose inputs are
no multiple of 32 (they stay as they are), GPUs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.models.packed import (
    GROUP,
    Packed,
    Part,
    chunk_rows,
    pack,
    pack_weight,
    product,
    quantize_rows,
    stack,
)

Progress = Callable[[str, int, int], None]  # what is being done, done, of how many

_FORMAT = "kvorum-packed-2"


class PackedLinear(nn.Module):
    """`nn.Linear` with packed weights: x float32 [..., in_features] to float32 [..., out_features]."""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.packed = packed
        self.in_features = packed.features
        self.out_features = packed.rows

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None = None, bits: int = 7) -> PackedLinear:
        """Quantise `weight` [out_features, in_features] of any float dtype to `bits` 4 or 7."""
        return cls(Packed([pack_weight(weight, bits, bias)]))

    @classmethod
    def from_gguf(cls, tensor: Any, bias: Tensor | None = None, order: Tensor | None = None) -> PackedLinear:
        """Pack a `gguf.ReaderTensor`, its rows taken in `order` (LongTensor [out_features]) if given."""
        return cls(Packed([_from_gguf(tensor, bias, order)]))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.in_features).float()
        y = product(quantize_rows(flat), self.packed)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def extra_repr(self) -> str:
        bits = "+".join(str(part.bits) for part in self.packed.parts)
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={bits}"


class PackedEmbedding(nn.Module):
    """`nn.Embedding` over the packed rows of an output layer: ids [...] to float32 [..., features]."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        self.num_embeddings = part.rows
        self.embedding_dim = part.data.shape[1] * GROUP

    def forward(self, ids: Tensor) -> Tensor:
        return self.part.dequantize(ids.reshape(-1)).view(*ids.shape, self.embedding_dim)


def quantize_model(
    model: Any, gguf: str | os.PathLike[str] | None = None, *, bits: int = 7, progress: Progress | None = None
) -> None:
    """Replace the linear layers of `model` (a causal LM, float32, on the CPU) by `PackedLinear`, in place.

    With `gguf`, the weights are those of that file, which must be the same model (see `takes_over`); what it lacks,
    and everything without it, is quantised from the module to `bits` 4 or 7. An embedding tied to the output layer
    reads its packed rows, and one that the file has reads the file's. With `gguf` the model may be on the meta device:
    it is filled from the file. Raises `UnsupportedModel` or `ModelFileError`.
    """
    file = None if gguf is None else _GgufWeights(gguf, model.config)
    todo = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    todo = [(name, m) for name, m in todo if m.in_features % GROUP == 0]
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and embedding is not None and head.weight is embedding.weight

    def convert(item: tuple[str, nn.Linear]) -> Part:
        name, linear = item
        shape = (linear.in_features, linear.out_features)
        part = None if file is None else file.part(name, shape, linear.bias)
        if part is None:
            _refuse_meta(name, linear.weight)
            part = pack_weight(linear.weight, bits, linear.bias)
        return part

    for done, ((name, linear), part) in enumerate(zip(todo, _in_threads(convert, todo), strict=True)):
        if progress is not None:
            progress("packing weights", done, len(todo))
        _put(model, name, PackedLinear(Packed([part])))
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
        progress("packing weights", len(todo), len(todo))


def takes_over(architecture: str, tensors: Iterable[str]) -> bool:
    """Whether `quantize_model` can make a model of a GGUF file alone, given its architecture and tensors' names."""
    return architecture in _ARCHITECTURES and "rope_freqs.weight" not in tensors


def _fill(model: Any, file: _GgufWeights) -> None:
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
                _refuse_meta(name, parameter)
                continue
            model.get_submodule(parent)._parameters[leaf] = nn.Parameter(values, requires_grad=False)


def _refuse_meta(name: str, weight: Tensor) -> None:
    if weight.is_meta:
        raise ModelFileError(f"The GGUF file has no weights of the right shape for {name}; fetch the file again.")


_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")


def _in_threads(convert: Callable[[tuple[str, nn.Linear]], Part], todo: list[tuple[str, nn.Linear]]) -> Iterator[Part]:
    """`convert` over the layers, one thread a layer: many small steps, for which torch's own threads only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(convert, todo)
    finally:
        torch.set_num_threads(threads)


class _GgufWeights:
    """The tensors of a GGUF file under the names of a transformers model."""

    def __init__(self, path: str | os.PathLike[str], config: Any) -> None:
        from gguf import MODEL_ARCH_NAMES, GGUFReader, get_tensor_name_map

        try:
            reader = GGUFReader(path)
            arch = str(reader.fields["general.architecture"].contents())
        except (OSError, ValueError, KeyError) as error:
            raise ModelFileError(f"{path} cannot be read as GGUF: {error}.") from error
        if arch not in _ARCHITECTURES:
            raise UnsupportedModel(f"The weights of a GGUF file of architecture {arch} are not taken over packed.")
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.untied = "output.weight" in self._tensors
        self._names = get_tensor_name_map({v: k for k, v in MODEL_ARCH_NAMES.items()}[arch], config.num_hidden_layers)
        # llama.cpp reorders the rows of q and k so that the two halves of a rotated pair lie side by side.
        self._interleaved = arch in ("llama", "mistral")
        self._heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}

    def values(self, name: str, leaf: str) -> Tensor | None:
        """A small tensor (a norm, a bias) in float32, or None."""
        from gguf.quants import dequantize

        tensor = self._tensors.get(f"{self._names.get_name(name)}.{leaf}")
        if tensor is None:
            return None
        return torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))

    def part(self, name: str, shape: tuple[int, int], bias: Tensor | None = None) -> Part | None:
        """The packed matrix of the linear layer or embedding `name`, of `shape` (inputs, outputs), or None.

        Its bias is the file's, or `bias` where the file has none.
        """
        found = self._names.get_name(name)
        if found == "output" and not self.untied:
            found = "token_embd"
        tensor = self._tensors.get(f"{found}.weight")
        if tensor is None:
            return None
        if tuple(int(n) for n in tensor.shape) != shape:
            raise ModelFileError(f"{tensor.name} in the GGUF file has another shape than {name} in the model.")
        heads = self._heads.get(name.rpartition(".")[2]) if self._interleaved else None
        order = None
        if heads is not None:
            order = torch.arange(shape[1]).view(heads, -1, 2).transpose(1, 2).reshape(-1)
        own = None if bias is None else self.values(name, "bias")
        if own is None and bias is not None:
            _refuse_meta(f"{name}.bias", bias)
            own = bias
        return _from_gguf(tensor, own, order)


def _from_gguf(tensor: Any, bias: Tensor | None, order: Tensor | None) -> Part:
    from gguf.quants import dequantize

    kind = tensor.tensor_type.name
    unpack = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k}.get(kind)
    raw = tensor.data if order is None else tensor.data[order.numpy()]

    def pieces() -> Iterator[Part]:
        step = chunk_rows(int(tensor.shape[0]))
        for start in range(0, len(raw), step):
            rows = raw[start : start + step]
            if unpack is None:
                dense = np.ascontiguousarray(dequantize(rows, tensor.tensor_type), np.float32)
                yield pack_weight(torch.from_numpy(dense), 7)
            else:
                yield pack(*unpack(torch.from_numpy(np.array(rows))), 4)

    return stack(pieces(), bias)


def _nibbles(packed: Tensor) -> Tensor:
    """Low halves of the bytes [..., n], then the high ones: [..., 2n]."""
    return torch.cat((packed & 15, packed >> 4), -1)


def _q4_0(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    blocks = raw.view(len(raw), -1, 18)
    scale = blocks[..., :2].contiguous().view(torch.float16).float()[..., 0]
    return _nibbles(blocks[..., 2:]).flatten(1), scale, -8 * scale


def _q4_1(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    blocks = raw.view(len(raw), -1, 20)
    scale, low = blocks[..., :4].contiguous().view(torch.float16).float().unbind(-1)
    return _nibbles(blocks[..., 4:]).flatten(1), scale, low


def _q4_k(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    blocks = raw.view(len(raw), -1, 144)  # 256 inputs: d, dmin, 12 bytes of eight 6-bit scales and mins, 128 of codes
    d, dmin = blocks[..., :4].contiguous().view(torch.float16).float().chunk(2, -1)
    a, b, c = torch.split(blocks[..., 4:16], 4, -1)
    scale = torch.cat((a & 63, (c & 15) | ((a >> 6) << 4)), -1)
    low = torch.cat((b & 63, (c >> 4) | ((b >> 6) << 4)), -1)
    codes = _nibbles(blocks[..., 16:].view(*blocks.shape[:2], 4, 32))
    return codes.flatten(1), (d * scale).flatten(1), (-dmin * low).flatten(1)


def save_packed(model: Any, path: str | os.PathLike[str]) -> None:
    """Write every packed matrix and every other parameter and buffer of `model` to one safetensors file."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    bits: dict[str, list[int]] = {}
    ties: dict[str, str] = {}
    embeddings: dict[str, int] = {}
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            bits[name] = [part.bits for part in module.packed.parts]
            for i, part in enumerate(module.packed.parts):
                owner[id(part)] = name
                tensors[f"{name}.{i}.data"], tensors[f"{name}.{i}.mult"] = part.data, part.mult
                if part.bias is not None:
                    tensors[f"{name}.{i}.bias"] = part.bias
    for name, module in model.named_modules():
        if isinstance(module, PackedEmbedding):
            if id(module.part) in owner:
                ties[name] = owner[id(module.part)]
                continue
            embeddings[name] = module.part.bits
            tensors[f"{name}.0.data"], tensors[f"{name}.0.mult"] = module.part.data, module.part.mult
    for name, tensor in _others(model):
        tensors[name] = tensor.detach().contiguous()
    about = {
        "format": _FORMAT,
        "bits": json.dumps(bits),
        "ties": json.dumps(ties),
        "embeddings": json.dumps(embeddings),
    }
    path = Path(path)
    part_path = path.with_name(path.name + ".part")
    save_file(tensors, part_path, metadata=about)
    part_path.chmod(0o644)
    part_path.replace(path)


def load_packed(model: Any, path: str | os.PathLike[str]) -> None:
    """Fill `model` (same configuration, on the meta device or not) from a file of `save_packed`, in place.

    Raises `ModelFileError` for a file that is damaged, of another version or of another model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != _FORMAT:
                raise ModelFileError(f"{path} holds no packed weights of this version; convert the model again.")
            for name, widths in json.loads(about["bits"]).items():
                parts = [_read_part(file, f"{name}.{i}", bits) for i, bits in enumerate(widths)]
                _put(model, name, PackedLinear(Packed(parts)))
            for name, width in json.loads(about["embeddings"]).items():
                _put(model, name, PackedEmbedding(_read_part(file, f"{name}.0", width)))
            for name, source in json.loads(about["ties"]).items():
                _put(model, name, PackedEmbedding(model.get_submodule(source).packed.parts[0]))
            for name, old in list(_others(model)):
                tensor = file.get_tensor(name)
                if tensor.shape != old.shape:
                    raise ModelFileError(f"{path} was made from another model: {name} has another shape.")
                parent, _, leaf = name.rpartition(".")
                home = model.get_submodule(parent)
                if leaf in home._parameters:
                    home._parameters[leaf] = nn.Parameter(_aligned(tensor), requires_grad=False)
                else:
                    home._buffers[leaf] = _aligned(tensor)
    except (SafetensorError, OSError, AttributeError, KeyError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path} cannot be read as packed weights of this model: {error}.") from error


def _read_part(file: Any, name: str, bits: int) -> Part:
    bias = _aligned(file.get_tensor(f"{name}.bias")) if f"{name}.bias" in file.keys() else None  # noqa: SIM118
    return Part(_aligned(file.get_tensor(f"{name}.data")), _aligned(file.get_tensor(f"{name}.mult")), bits, bias)


def _aligned(tensor: Tensor) -> Tensor:
    """A tensor that starts a cache line: a weight register that straddles two costs two loads."""
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def _others(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that are not packed, among them the buffers that a state dict leaves out."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _put(model: Any, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
