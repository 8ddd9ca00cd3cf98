"""A file of results, one JSON object a line, that a long job appends to and goes on with after it was killed.

A line is written at once and forced to the disk. A line that a killed process left half-written is cut off when the
file is opened again. Whole lines stay, but for one: that of an error goes where a later line is about the same thing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject


class ResultLines:
    """The lines of ``path``, which is made where it is not there. ``keys``: the fields by which a line is known, first
    that which says what it is about.

    Raises:
        BadRequest: the file holds something else. OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, keys: tuple[str, ...]) -> None:
        self.path, self._keys = path, keys
        self._known: dict[tuple[str, ...], JsonObject] = {}
        self._failed: set[str] = set()
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            found = self._read(line, number)
            self._learn(found)
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))

    def has(self, line: JsonObject) -> bool:
        """Whether there is a line, not of an error, with the keys of this one."""
        return self._mark(line) in self._known

    def append(self, line: JsonObject) -> None:
        """Write a line, whole or not at all as far as the system can."""
        if self._mark(line)[0] in self._failed:
            self._drop_error(self._mark(line)[0])
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(file, data) != len(data):
                raise OSError(f"{self.path}: the disk is full")
            os.fsync(file)
        finally:
            os.close(file)
        self._learn(line)

    def __iter__(self) -> Iterator[JsonObject]:
        return iter(self._known.values())

    def _learn(self, line: JsonObject) -> None:
        if "error" in line:
            self._failed.add(self._mark(line)[0])
        else:
            self._known[self._mark(line)] = line

    def _drop_error(self, about: str) -> None:
        """Write the file anew without the errors of what a line is to come about."""
        self._failed.discard(about)
        lines = self.path.read_bytes().splitlines(keepends=True)
        found = [json.loads(line) for line in lines]
        rest = [
            line for line, one in zip(lines, found, strict=True) if "error" not in one or self._mark(one)[0] != about
        ]
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_bytes(b"".join(rest))
        part.replace(self.path)

    def _mark(self, line: JsonObject) -> tuple[str, ...]:
        return tuple(str(line.get(key)) for key in self._keys)

    def _read(self, line: bytes, number: int) -> JsonObject:
        try:
            found: Json = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, Mapping) or not all(key in found for key in self._keys):
            raise BadRequest(f"Line {number} of {self.path} is none of such results; name another file.")
        return found
