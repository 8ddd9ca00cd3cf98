"""The records of a study: one line of JSON for each finished cell, appended whole or not at all.

A process that is killed leaves at most a cut last line, which the next one takes away. A finished cell stays finished:
its key is made from everything that determines it, so an edited study keeps what it still asks for.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Generic, TypeAlias, TypeVar

from kvorum.errors import BadTrace
from kvorum.jsontypes import Json
from kvorum.lab.extra import need

Record: TypeAlias = dict[str, Json]
"""What is kept of a finished cell: a row of the study's table."""
R = TypeVar("R", bound=Mapping[str, object])


class Records(Generic[R]):
    """The finished cells of one folder, by key."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cells.jsonl"
        self.done: dict[str, R] = {}
        self._file: IO[bytes] | None = None
        self._whole = 0  # bytes of whole lines
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record: R = json.loads(line)
                self.done[str(record["key"])] = record
            except (ValueError, KeyError, TypeError) as error:
                raise BadTrace(
                    f"Line {number} of {self.path} is damaged; take it out and run the study again."
                ) from error
        self._whole = len(whole)

    def add(self, record: R) -> None:
        """Append one finished cell and see it to the disk."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(self._whole)
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[str(record["key"])] = record

    def tabulate(self, keys: Iterable[str]) -> Path:
        """Write the finished cells of ``keys`` as ``table.csv`` and ``table.parquet``; the path of the former."""
        path = self.path.with_name("table.csv")
        write_table([self.done[key] for key in keys if key in self.done], path)
        return path

    def close(self) -> None:
        """Close the file; what is added later opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def write_table(records: Sequence[Mapping[str, object]], path: Path) -> None:
    """One tidy table, a row per run, mappings as JSON: a CSV at ``path``, and the same in Parquet beside it."""
    columns = {
        name: [_plain(record.get(name)) for record in records]
        for name in dict.fromkeys(name for record in records for name in record)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".part")
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    os.replace(fresh, path)
    arrow = need("pyarrow")
    typed = {name: arrow.array(values) for name, values in columns.items()}
    unknown = [name for name, column in typed.items() if arrow.types.is_null(column.type)]
    typed |= {name: typed[name].cast(arrow.float64()) for name in unknown}  # nothing in it yet: a figure to come
    need("pyarrow.parquet").write_table(arrow.table(typed), fresh)
    os.replace(fresh, path.with_suffix(".parquet"))


def _plain(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
