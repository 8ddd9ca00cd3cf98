"""The table of a study: a row for each finished run, as CSV and as Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

from kvorum.jsontypes import Json
from kvorum.lab import need
from kvorum.lab.study.study import Study
from kvorum.store.study_records import R, Records

if TYPE_CHECKING:
    from pandas import DataFrame

Record: TypeAlias = dict[str, Json]
"""What is kept of a finished cell: a row of the study's table."""


def tabulate(records: Records[R], keys: Iterable[str], folder: Path | None = None) -> Path:
    """Write the finished cells of ``keys`` as ``table.csv`` and ``table.parquet``, beside the records or in ``folder``;
    the path of the former."""
    path = (folder or records.path.parent) / "table.csv"
    write_table([records.done[key] for key in keys if key in records.done], path)
    return path


def finished(study: Study, folder: Path, *, kept: bool = True) -> DataFrame | None:
    """The table of a study's finished runs, of one that still runs too; None where there are none.

    ``kept``: it is written beside the records too.
    """
    records = Records[Record](folder)
    keys = [cell.key for cell in study.cells]
    if not any(key in records.done for key in keys):
        return None
    need("pyarrow.parquet")
    with TemporaryDirectory() as elsewhere:
        path = tabulate(records, keys, None if kept else Path(elsewhere))
        table: DataFrame = need("pandas").read_csv(path)
    return table


def write_table(records: Sequence[Mapping[str, object]], path: Path) -> None:
    """One tidy table, a row per run, mappings and lists as JSON: a CSV at ``path``, and in Parquet beside it."""
    rows = [
        {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
            for name, value in record.items()
        }
        for record in records
    ]
    table = need("pandas").DataFrame(rows, dtype=object)
    table = table.astype(dict.fromkeys(table.columns[table.isna().all()], float))  # nothing in it: a figure to come
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".part")
    table.to_csv(fresh, index=False, lineterminator="\r\n")  # RFC 4180; else a lone carriage return is not quoted
    os.replace(fresh, path)
    table.to_parquet(fresh, index=False)
    os.replace(fresh, path.with_suffix(".parquet"))
