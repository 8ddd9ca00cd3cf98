"""Reading a GGUF file: its metadata, and its tensors as they are stored.

A small reader of the format, versions 2 and 3, little-endian: many times faster than the general one on
files with a large vocabulary, and it tells a truncated or damaged file in one sentence. Tensor data is a
memory map, still quantised. Dequantising is `gguf.dequantize`'s business, tensor names are the file's own.
Source: the GGUF specification in the ggml repository, docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kvorum import wording
from kvorum.errors import ModelFileError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor of the file, quantised as stored."""

    name: str
    type: str  # "Q4_K", "F32", ... as ggml names it
    shape: tuple[int, ...]  # as torch sees it: [out, in] for a linear
    offset: int  # bytes from the start of the file
    size: int  # bytes


class GGUFFile:
    """A GGUF file's metadata and tensors; raises `ModelFileError` if it is not whole."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metadata: dict[str, Any] = {}
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
        except (struct.error, UnicodeDecodeError, KeyError, MemoryError, OverflowError) as error:
            raise ModelFileError(
                f"{self.path} is cut short or damaged: its header cannot be read; fetch the file again."
            ) from error
        end = max((tensor.offset + tensor.size for tensor in self.tensors.values()), default=0)
        if end > self._bytes:
            raise ModelFileError(
                f"{self.path} is cut short: it has {wording.size(self._bytes)} of {wording.size(end)}; "
                "fetch the file again."
            )

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def weights(self) -> int:
        """How many weights the file holds."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    def data(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The stored bytes of a tensor, uint8 [size], mapped read-only."""
        tensor = self.tensors[name]
        return np.frombuffer(self._map, np.uint8, tensor.size, tensor.offset)

    def _parse(self) -> None:
        version = self._one("I")
        if version not in (2, 3):
            raise ModelFileError(
                f"{self.path} is of GGUF version {version}, but only 2 and 3 are known; it may be big-endian."
            )
        tensors, pairs = self._one("Q"), self._one("Q")
        for _ in range(pairs):
            key = self._string()
            self.metadata[key] = self._value(self._one("I"))
        found = []
        for _ in range(tensors):
            name = self._string()
            shape = tuple(self._one("Q") for _ in range(self._one("I")))
            found.append((name, shape[::-1], self._one("I"), self._one("Q")))
        alignment = int(self.metadata.get("general.alignment", 32))
        start = -(-self._at // alignment) * alignment
        for name, shape, kind, offset in found:
            label, per_block, block_bytes = self._types[kind]
            size = math.prod(shape) // per_block * block_bytes
            self.tensors[name] = GGUFTensor(name, label, shape, start + offset, size)

    @cached_property
    def _types(self) -> dict[int, tuple[str, int, int]]:
        from gguf.constants import GGML_QUANT_SIZES

        return {int(kind): (str(kind.name), block, size) for kind, (block, size) in GGML_QUANT_SIZES.items()}

    def _one(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._map, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        size = self._one("Q")
        if size > self._bytes - self._at:
            raise struct.error("a string reaches past the end of the file")
        value = self._map[self._at : self._at + size].decode()
        self._at += size
        return value

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._one(_SCALARS[kind])
        element, count = self._one("I"), self._one("Q")
        if count > self._bytes - self._at:
            raise struct.error("an array reaches past the end of the file")
        if element in _SCALARS:
            values = struct.unpack_from(f"<{count}{_SCALARS[element]}", self._map, self._at)
            self._at += struct.calcsize(f"<{count}{_SCALARS[element]}")
            return list(values)
        return [self._value(element) for _ in range(count)]
