"""Reading a GGUF file: its metadata, and its tensors as they are stored.

A small reader of the format, versions 2 and 3, little-endian: many times faster than the general one on files with a
large vocabulary, and it tells a truncated or damaged file in one sentence. Tensor data is a memory map, quantised as it
is, and names of tensors are the file's own; dequantising is done by the `gguf` package. A split file is read whole from
its first shard, the others lying beside it.
Source: the GGUF specification in the ggml repository, docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from kvorum.errors import ModelFileError
from kvorum.models.cache_folder import shard_paths
from kvorum.wording import size

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

Value: TypeAlias = "bool | int | float | str | list[Value]"


@dataclass(frozen=True, eq=False)
class GGUFTensor:
    """One tensor of the file, quantised as stored.

    `type` is ggml's name of its blocks ("Q4_K", "F32"), `shape` as torch sees it ([out, in] of a linear layer), `data`
    uint8 [..., bytes of a row], mapped read-only.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def dequantize(self, rows: NDArray[np.uint8] | None = None) -> torch.Tensor:
        """The weights in float32, or only those of `rows` of `data`."""
        from gguf import GGMLQuantizationType, dequantize

        with np.errstate(all="ignore"):  # a damaged scale may be no number, which whoever takes the weights looks at
            found = dequantize(self.data if rows is None else rows, GGMLQuantizationType[self.type])
        return torch.from_numpy(np.array(found, np.float32))


class GGUFFile:
    """A GGUF file's metadata and tensors; raises `ModelFileError` if it is not whole."""

    def __init__(self, path: str | os.PathLike[str], *, _shard: int | None = None) -> None:
        self.path = Path(path)
        self.metadata: dict[str, Value] = {}
        self.tensors: dict[str, GGUFTensor] = {}
        try:
            self._bytes = self.path.stat().st_size
            with self.path.open("rb") as file:  # an empty file cannot be mapped
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._bytes else b""
        except OSError as error:
            raise ModelFileError(f"{self.path} cannot be read: {error.strerror or error}.") from error
        if self._map[:4] != b"GGUF":
            raise ModelFileError(f"{self.path} is not a GGUF file: it does not start with the letters GGUF.")
        self._at = 4
        try:
            self._parse()
        except (struct.error, ValueError, KeyError, IndexError, MemoryError, OverflowError) as error:
            raise ModelFileError(
                f"{self.path} is cut short or damaged: its header cannot be read; fetch the file again."
            ) from error
        if _shard is None and self.metadata.get("split.count", 0) not in (0, 1):
            self._join()

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def weights(self) -> int:
        """How many weights the file holds."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    def _parse(self) -> None:
        from gguf import GGML_QUANT_SIZES

        version = self._whole("I")
        if version not in (2, 3):
            raise ModelFileError(
                f"{self.path} is of GGUF version {version}, but only 2 and 3 are known; it may be big-endian."
            )
        tensors, pairs = self._whole("Q"), self._whole("Q")
        for _ in range(pairs):
            key = self._string()
            if key in self.metadata:
                raise ValueError("a key is there twice")
            self.metadata[key] = self._value(self._whole("I"))
        rows = {}
        known = {kind.value: kind for kind in GGML_QUANT_SIZES}
        for _ in range(tensors):
            name = self._string()
            shape = self._shape()
            number, offset = self._whole("I"), self._whole("Q")
            if number not in known:
                raise ModelFileError(
                    f"{self.path} is damaged, or newer than what is known here: its tensor {name[:80]} is of a type "
                    f"with the number {number}."
                )
            kind = known[number]
            per_block, block_bytes = GGML_QUANT_SIZES[kind]
            if not shape or shape[-1] % per_block or name in rows:
                raise ValueError("a row is no whole number of blocks, or a tensor is there twice")
            rows[name] = kind.name, shape, (*shape[:-1], shape[-1] // per_block * block_bytes), offset
        alignment = self.metadata.get("general.alignment", 32)
        if isinstance(alignment, bool) or not isinstance(alignment, int) or alignment <= 0:
            raise ValueError("an alignment that is no number above zero")
        start = -(-self._at // alignment) * alignment
        end = max((start + offset + math.prod(stored) for _, _, stored, offset in rows.values()), default=0)
        if end > self._bytes:
            raise ModelFileError(
                f"{self.path} is cut short: it has {size(self._bytes)} of {size(end)}; fetch the file again."
            )
        expected = 0
        for name, (kind_name, shape, stored, offset) in rows.items():
            if offset != expected:  # they lie one behind the other; anything else is damage
                raise ModelFileError(
                    f"{self.path} is damaged: {name} begins at byte {offset} of the data, not at {expected}; "
                    "fetch the file again."
                )
            expected += -(-math.prod(stored) // alignment) * alignment
            data = np.frombuffer(self._map, np.uint8, math.prod(stored), start + offset).reshape(stored)
            self.tensors[name] = GGUFTensor(name, kind_name, shape, data)

    def _join(self) -> None:
        """Take in the tensors of the other shards of a split file, which lie beside this one, the first."""
        count, number = self.metadata.get("split.count"), self.metadata.get("split.no", 0)
        if not isinstance(count, int) or not isinstance(number, int) or count > 99999:
            raise ModelFileError(f"{self.path} is damaged: its split.count and split.no are no numbers of shards.")
        paths = shard_paths(self.path)
        if len(paths) != count or not 0 <= number < count or paths[number].name != self.path.name:
            raise ModelFileError(
                f"{self.path} is shard {number + 1} of {count} of a split file, and must be named "
                f"NAME-{number + 1:05d}-of-{count:05d}.gguf for the others to be found."
            )
        if number:
            raise ModelFileError(f"{self.path} is shard {number + 1} of {count} of a split file; give the first one.")
        if missing := [path.name for path in paths if not path.is_file()]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ModelFileError(f"{self.path} is a part of a split file whose shard {missing[0]}{more} is missing.")
        for at, path in enumerate(paths[1:], 1):
            shard = GGUFFile(path, _shard=at)
            if (shard.metadata.get("split.no"), shard.metadata.get("split.count")) != (at, count):
                raise ModelFileError(f"{path} is not shard {at + 1} of {count} of the same file.")
            if twice := self.tensors.keys() & shard.tensors.keys():
                raise ModelFileError(f"{path} has a tensor that another shard has too: {min(twice)}.")
            self.tensors |= shard.tensors
        wanted = self.metadata.get("split.tensors.count", len(self.tensors))
        if wanted != len(self.tensors):
            raise ModelFileError(f"{self.path} and its shards have {len(self.tensors)} tensors of {wanted}.")

    def _shape(self) -> tuple[int, ...]:
        """A tensor's shape as torch sees it; every one has four dimensions, of which the first of one are not shown."""
        count = self._whole("I")
        if count > 4:
            raise ValueError("a tensor of more than four dimensions")
        shape = [self._whole("Q") for _ in range(count)][::-1]
        while len(shape) > 1 and shape[0] == 1:
            del shape[0]
        return tuple(shape)

    def _numbers(self, code: str, count: int = 1) -> list[Value]:
        layout = f"<{count}{code}"
        values = struct.unpack_from(layout, self._map, self._at)
        self._at += struct.calcsize(layout)
        return list(values)

    def _whole(self, code: str) -> int:
        """An unsigned integer of the header."""
        (value,) = self._numbers(code)
        assert isinstance(value, int)
        return value

    def _string(self) -> str:
        size = self._whole("Q")
        if size > self._bytes - self._at:
            raise struct.error("a string reaches past the end of the file")
        value = self._map[self._at : self._at + size].decode()
        self._at += size
        return value

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._numbers(_SCALARS[kind])[0]
        element, count = self._whole("I"), self._whole("Q")
        if count > self._bytes - self._at:
            raise struct.error("an array reaches past the end of the file")
        if element in _SCALARS:
            return self._numbers(_SCALARS[element], count)
        return [self._value(element) for _ in range(count)]
