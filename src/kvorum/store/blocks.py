"""Blocks on disk: safetensors with the model's fingerprint, the token ids and the dtype.

Keys are stored as they are in the pool (rotated to their index in the block), so that a loaded block can stand in any
view. A file that belongs to another model, dtype or format, or whose bytes have changed, is refused by name before
anything is allocated. Files of version 1 have no checksum, so that only what is missing in them is seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kvorum.backends.backend import Backend
from kvorum.errors import BadRequest, BlockMismatch
from kvorum.kv.block import Block, check_pool
from kvorum.kv.pool import PagePool
from kvorum.models.tensor_file import write_tensors
from kvorum.versions import BLOCK


def save_block(block: Block, path: Path, backend: Backend, pool: PagePool, length: int | None = None) -> Path:
    """Write ``block``, or its first ``length`` tokens, to ``path``; a file that is there is replaced only once the new
    one is complete.

    Raises:
        BadRequest: the file's folder is not there; none is made. OSError: the disk is full, say; what was there is as
            it was.
    """
    check_pool(block, pool)
    if not path.parent.is_dir():
        raise BadRequest(f"The block cannot be saved as {path}: there is no folder {path.parent}; make it first.")
    length = len(block) if length is None else length
    tensors = {"ids": torch.tensor(block.tail(0, length), dtype=torch.long)}
    for layer, (keys, values) in enumerate(backend.read(block.table.slot_tensor(0, length))):
        tensors[f"keys.{layer}"] = keys
        tensors[f"values.{layer}"] = values
    about = {
        "format": BLOCK.key,
        "fingerprint": backend.fingerprint,
        "name": block.name,
        "dtype": _dtype_name(backend.cache.dtype),
        "layers": json.dumps(backend.cache.layers),
        "sha256": _digest(tensors),
    }
    write_tensors(path, tensors, about)
    return path


def load_block(path: Path, backend: Backend, pool: PagePool, name: str = "", *, sealed: bool = True) -> Block:
    """Read a block into ``pool``, sealed or to be written on. Named ``name``, or as it was when saved.

    Raises:
        BlockMismatch: no such file, or wrong model, dtype, shape or format. OutOfPages: no room.
    """
    if not path.is_file():
        raise BlockMismatch(f"There is no block file {path}; give one that was written by Engine.save.")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            version = BLOCK.version(about.get("format"), path)
            _refuse_mismatch(path, about, backend)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
    except SafetensorError as error:
        raise BlockMismatch(f"{path} is damaged or no block file ({error}); save the block again.") from error
    layers = range(len(backend.cache.layers))
    needed = {"ids", *(f"{what}.{layer}" for what in ("keys", "values") for layer in layers)}
    unmarked = version == 1 and "sha256" not in about
    if not (unmarked or _digest(tensors) == about.get("sha256")) or not needed <= tensors.keys():
        raise BlockMismatch(f"{path} is damaged: its contents do not match their checksum; save the block again.")
    block = Block(pool, name or about["name"])
    block.append(tensors["ids"].tolist())
    contents = [(tensors[f"keys.{layer}"], tensors[f"values.{layer}"]) for layer in layers]
    backend.write(block.table.slot_tensor(0, len(block)), contents)
    return block.seal() if sealed else block


def saved_length(path: Path) -> int:
    """How many tokens a block file holds, from its head alone.

    Raises:
        BlockMismatch: it is no block file. FileNotFoundError: there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.get_slice("ids").get_shape()[0])
    except SafetensorError as error:
        raise BlockMismatch(f"{path} is damaged or no block file ({error}); save the block again.") from error


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _refuse_mismatch(path: Path, about: dict[str, str], backend: Backend) -> None:
    checks = (
        ("fingerprint", backend.fingerprint, "another model"),
        ("dtype", _dtype_name(backend.cache.dtype), "another dtype"),
        ("layers", json.dumps(backend.cache.layers), "a cache of another shape"),
    )
    for key, wanted, what in checks:
        if about.get(key) != wanted:
            raise BlockMismatch(
                f"{path} holds a block of {what} ({key} {about.get(key)}, this engine has {wanted}); "
                "load it into the engine that it was made with."
            )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
