"""The records of a study: one line of JSON for each finished cell, appended whole or not at all.

A process that is killed leaves at most a cut last line, which the next one takes away. A finished cell stays finished:
its key is made from everything that determines it, so an edited study keeps what it still asks for. Each line says its
version, so a study that an earlier kvorum began goes on in the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

from kvorum.errors import BadRequest, BadTrace
from kvorum.versions import STUDY

R = TypeVar("R", bound=Mapping[str, object])


def record_key(determines: Mapping[str, object]) -> str:
    """A hash of everything that determines a record."""
    text = json.dumps(determines, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Records(Generic[R]):
    """The finished cells of one folder, by key, in the newest form.

    Raises:
        BadTrace: a line is damaged, or of a later version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cells.jsonl"
        self.done: dict[str, R] = {}
        self._whole = 0  # bytes of whole lines
        if self.path.exists():
            data = self.path.read_bytes()
            self._whole = data.rfind(b"\n") + 1
            for number, line in enumerate(data[: self._whole].splitlines(), start=1):
                record = self._read(line, f"Line {number} of {self.path}")
                self.done[str(record["key"])] = record

    def _read(self, line: bytes, place: str) -> R:
        try:
            found = json.loads(line)
            version = found.pop("version", 1)
            str(found["key"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadTrace(f"{place} is damaged; take it out and run the study again.") from error
        if STUDY.version(version, place) < 2 and "world" in found:
            found["scenario"] = found.pop("world")
        record: R = found
        return record

    def add(self, record: R) -> None:
        """Append one finished cell and see it to the disk.

        Raises:
            BadRequest: another process has added cells since; its lines are left.
        """
        line = json.dumps({"version": STUDY.newest, **record}, ensure_ascii=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(self._whole)
            if b"\n" in file.read():  # a line that was cut by a kill has no end
                raise BadRequest(f"Another process adds to {self.path}; let one of the two end, then go on with it.")
            file.truncate(self._whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(line)
        self.done[str(record["key"])] = record
