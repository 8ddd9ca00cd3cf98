"""`kvorum study`: run a study, report on it, take its variance apart."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvorum.cli.options import check_model
from kvorum.errors import BadRequest
from kvorum.wording import clock

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from kvorum.api import Engine
    from kvorum.lab.study.jobs import Progress
    from kvorum.lab.study.study import Study


def study(args: Namespace) -> int:
    """Returns the exit code: 1 where cells failed."""
    from kvorum.cli.faults import faults

    does = {"run": _run, "report": _report, "attention": _attention, "variance": _variance, "faults": faults}
    return does[args.action](args)


def _folder(args: Namespace, name: str) -> Path:
    return Path(args.output) if args.output is not None else Path(f"{name}-results")


def _read(args: Namespace) -> Study:
    from kvorum.lab.study.study import Study

    return Study.read(args.file)


def _run(args: Namespace) -> int:
    from kvorum.cli.solve import Interrupted, terminable
    from kvorum.lab.study.runner import run_study

    asked = _read(args)
    models = {name: check_model(name) for name in asked.models}
    folder = _folder(args, asked.name)
    seen: list[Progress] = []

    def load(name: str) -> Engine:
        from kvorum.api import Engine

        return Engine.load(models[name], kv_tokens=asked.kv_tokens)

    with terminable(), shown(args) as show:

        def tell(progress: Progress) -> None:
            seen[:] = [progress]
            show(progress)

        try:
            run_study(asked, folder, load, tell)
        except KeyboardInterrupt as error:
            done = f"{seen[0].done} of {seen[0].total} cells are done" if seen else "nothing was run"
            raise Interrupted(f"stopped; {done}; the same command goes on") from error
    progress = seen[0]
    told = {
        "study": asked.name, "cells": progress.total, "done": progress.done, "failed": progress.failed,
        "seconds": round(progress.seconds, 2), "table": str(folder / "table.csv"),
    }  # fmt: skip
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(f"{progress.done} of {progress.total} cells in {clock(progress.seconds)}; table {folder / 'table.csv'}")
        print(f"report with: kvorum study report {args.file}")
    for line in progress.failed[:5]:
        print(f"kvorum: failed: {line}", file=sys.stderr)
    return 1 if progress.failed else 0


def shown(args: Namespace) -> AbstractContextManager[Callable[[Progress], None]]:
    """A bar in a terminal, a line every ten seconds in a pipe, nothing with --json."""
    if args.json:
        return nullcontext(lambda progress: None)
    from rich.console import Console

    if Console(stderr=True).is_terminal:
        return _Bar()
    last = [0.0]

    def line(progress: Progress) -> None:
        if time.monotonic() - last[0] > 10 or progress.done == progress.total:
            last[0] = time.monotonic()
            print(_words(progress), file=sys.stderr, flush=True)

    return nullcontext(line)


class _Bar:
    def __enter__(self) -> Callable[[Progress], None]:
        from rich.console import Console
        from rich.status import Status

        self._status = Status("loading", console=Console(stderr=True))
        self._status.start()
        return lambda progress: self._status.update(_words(progress))

    def __exit__(self, *_: object) -> None:
        self._status.stop()


def _words(progress: Progress) -> str:
    left = "" if progress.left is None else f", about {clock(progress.left)} left"
    failed = f", {len(progress.failed)} failed" if progress.failed else ""
    return f"{progress.done} of {progress.total} cells, {clock(progress.seconds)}{left}{failed}"


def _table(args: Namespace) -> tuple[Study, Path, Any]:
    """The study, its folder and its table."""
    from kvorum.lab.extra import need
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
    from kvorum.lab.report.variance import as_markdown
    from kvorum.lab.statistics.variance import decompose

    _, folder, table = _table(args)
    found = decompose(table, draws=args.draws)
    text = as_markdown(found)
    (folder / "variance.md").write_text(text, encoding="utf-8")
    print(json.dumps(asdict(found)) if args.json else text)
    return 0
