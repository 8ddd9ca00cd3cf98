"""The table of a study: a row for each finished run, as CSV and as Parquet."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from kvorum.jsontypes import Json
from kvorum.lab.extra import need
from kvorum.store.records import R, Records

Record: TypeAlias = dict[str, Json]
"""What is kept of a finished cell: a row of the study's table."""


def tabulate(records: Records[R], keys: Iterable[str]) -> Path:
    """Write the finished cells of ``keys`` as ``table.csv`` and ``table.parquet``; the path of the former."""
    path = records.path.with_name("table.csv")
    write_table([records.done[key] for key in keys if key in records.done], path)
    return path


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
