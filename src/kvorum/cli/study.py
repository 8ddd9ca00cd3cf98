"""`kvorum study`: run a study, report on it, take its variance apart."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import check_model
from kvorum.cli.study_progress import exit_code, followed
from kvorum.errors import BadRequest
from kvorum.wording import clock

if TYPE_CHECKING:
    from argparse import Namespace

    from pandas import DataFrame

    from kvorum.api import Engine
    from kvorum.lab.study.study import Study


def study(args: Namespace) -> int:
    """Returns the exit code: 1 where cells failed."""
    from kvorum.cli.study_faults import faults

    does = {"run": _run, "report": _report, "attention": _attention, "variance": _variance, "faults": faults}
    return does[args.action](args)


def _folder(args: Namespace, name: str) -> Path:
    return Path(args.output) if args.output is not None else Path(f"{name}-results")


def _read(args: Namespace) -> Study:
    from kvorum.lab.study.study import Study

    return Study.read(args.file)


def _run(args: Namespace) -> int:
    from kvorum.lab.study.runner import run_study

    asked = _read(args)
    models = {name: check_model(name) for name in asked.models}
    folder = _folder(args, asked.name)

    def load(name: str) -> Engine:
        from kvorum.api import Engine

        return Engine.load(models[name], kv_tokens=asked.kv_tokens)

    with followed(args, "cells") as tell:
        progress = run_study(asked, folder, load, tell)
    told = {"study": asked.name, "cells": progress.total, "done": progress.done, "failed": progress.failed}
    if args.json:
        more = {"seconds": round(progress.seconds, 2), "table": str(folder / "table.csv")}
        print(json.dumps(told | more, ensure_ascii=False))
    else:
        print(f"{progress.done} of {progress.total} cells in {clock(progress.seconds)}; table {folder / 'table.csv'}")
        print(f"report with: kvorum study report {args.file}")
    return exit_code(progress)


def _table(args: Namespace) -> tuple[Study, Path, DataFrame]:
    """The study, its folder and its table."""
    from kvorum.lab import need
    from kvorum.lab.study.table import Record, tabulate
    from kvorum.store.records import Records

    asked = _read(args)
    folder = _folder(args, asked.name)
    records = Records[Record](folder)  # that of a study which still runs, too
    if not any(cell.key in records.done for cell in asked.cells):
        raise BadRequest(f"{folder} holds no finished runs of it; run the study first: kvorum study run {args.file}")
    need("pyarrow.parquet")
    table = need("pandas").read_csv(tabulate(records, (cell.key for cell in asked.cells)), keep_default_na=True)
    return asked, folder, table


def _report(args: Namespace) -> int:
    from kvorum.lab.report.report import write_report

    asked, folder, table = _table(args)
    return _told(args, write_report(asked, table, folder, command=f"kvorum study run {args.file}"))


def _attention(args: Namespace) -> int:
    from kvorum.lab.report.report import write_attention

    asked, folder, table = _table(args)
    return _told(args, write_attention(asked, table, folder))


def _told(args: Namespace, paths: list[Path]) -> int:
    print(json.dumps([str(path) for path in paths]) if args.json else "\n".join(map(str, paths)))
    return 0


def _variance(args: Namespace) -> int:
    from kvorum.lab.report.page import as_markdown
    from kvorum.lab.report.variance import pieces
    from kvorum.lab.statistics.variance import decompose

    _, folder, table = _table(args)
    found = decompose(table, draws=args.draws)
    text = as_markdown(pieces(found))
    (folder / "variance.md").write_text(text, encoding="utf-8")
    print(json.dumps(asdict(found)) if args.json else text)
    return 0
