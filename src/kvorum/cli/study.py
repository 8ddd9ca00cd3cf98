"""`kvorum study`: run a study, report on it, take its variance apart; inject faults and judge the detectors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import check_model
from kvorum.cli.planned_run import terminable
from kvorum.errors import BadRequest
from kvorum.wording import clock

if TYPE_CHECKING:
    from argparse import Namespace

    from pandas import DataFrame

    from kvorum.api import Engine
    from kvorum.lab.study.jobs import Progress
    from kvorum.lab.study.study import Study


def study(args: Namespace) -> int:
    """Returns the exit code: 1 where cells failed."""
    does = {
        "run": _run,
        "report": _report,
        "gallery": _gallery,
        "attention": _attention,
        "variance": _variance,
        "faults": _faults,
    }
    return does[args.action](args)


# -- what is run ---------------------------------------------------------------------------------------------------


def _run(args: Namespace) -> int:
    from kvorum.lab.study.run_cells import run_study

    asked, folder = _read(args)
    models = {name: check_model(name) for name in asked.models}
    kv_tokens, ignore_unknown = asked.kv_tokens, bool(args.ignore_unknown)

    def load(name: str) -> Engine:
        from kvorum.api import Engine

        return Engine.load(models[name], kv_tokens=kv_tokens, ignore_unknown=ignore_unknown)

    with _followed(args, "cells") as tell:
        progress = run_study(asked, folder.absolute(), load, tell, args.ray)
    results = {"study": asked.name, "table": str(folder / "table.csv")}
    return _tell_end(args, progress, "cells", results, f"report with: kvorum study report {args.file}")


def _faults(args: Namespace) -> int:
    import torch

    from kvorum.lab.faults.scenarios import SCENARIOS
    from kvorum.lab.faults.study import REWORDED, SCRIPTED, fault_runs, run_faults, write_results

    if min(args.dev, args.seeds, args.model_dev, args.model_seeds) < 1:
        raise BadRequest("--dev, --seeds, --model-dev and --model-seeds must be at least 1.")
    scenarios = args.scenarios.split(",") if args.scenarios else list(SCENARIOS)
    seeds = range(args.dev + args.seeds)
    todo = fault_runs(SCRIPTED, scenarios, seeds) + fault_runs(REWORDED, scenarios, seeds[args.dev :])
    command = f"kvorum study faults --dev {args.dev} --seeds {args.seeds}"
    if args.model != "none":
        model = check_model(args.model)
        tried = [*range(args.model_dev), *range(args.dev, args.dev + args.model_seeds)]
        todo += fault_runs(args.model, scenarios, tried)
        command += f" --model {args.model} --model-dev {args.model_dev} --model-seeds {args.model_seeds}"
    command += f" --scenarios {args.scenarios}" if args.scenarios else ""

    def load(by: str) -> Engine:
        from kvorum.api import Engine
        from kvorum.lab.faults.scripted_engine import scripted_engine

        scripted = by in (SCRIPTED, REWORDED)
        torch.set_num_threads(1 if scripted else threads)  # products so small are not worth sharing
        return scripted_engine() if scripted else Engine.load(model, ignore_unknown=args.ignore_unknown)

    threads = torch.get_num_threads()
    try:
        with _followed(args, "runs") as tell:
            records, progress = run_faults(todo, Path(args.output), load, tell)
    finally:
        torch.set_num_threads(threads)
    path = write_results(records, Path(args.output), args.dev, command)
    return _tell_end(args, progress, "runs", {"report": str(path)}, path.read_text(encoding="utf-8"))


@contextmanager
def _followed(args: Namespace, what: str) -> Iterator[Callable[[Progress], None]]:
    """Gives what to call after each of the study's ``what`` ("cells"), which shows how far it is.

    A status in a terminal, a line every ten seconds in a pipe, nothing with --json. Ctrl-C says how to go on.
    """
    from rich.console import Console

    console = Console(stderr=True)
    status = console.status("loading") if console.is_terminal and not args.json else None
    last, done = 0.0, "nothing was run"

    def tell(progress: Progress) -> None:
        nonlocal last, done
        done = f"{progress.done} of {progress.total} {what} are done"
        if status is not None:
            status.update(_words(progress, what))
        elif not args.json and (time.monotonic() - last > 10 or progress.done == progress.total):
            last = time.monotonic()
            print(_words(progress, what), file=sys.stderr, flush=True)

    with terminable(), status or nullcontext():
        try:
            yield tell
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"stopped; {done}; the same command goes on") from error


def _words(progress: Progress, what: str) -> str:
    left = "" if progress.left is None else f", about {clock(progress.left)} left"
    failed = f", {len(progress.failed)} failed" if progress.failed else ""
    return f"{progress.done} of {progress.total} {what}, {clock(progress.seconds)}{left}{failed}"


def _tell_end(args: Namespace, progress: Progress, what: str, results: dict[str, str], words: str) -> int:
    """Print how it went with the study's ``what`` ("cells") and where the results are, for people ``words`` too.

    Returns the exit code: 1 where something failed, of which the first five are told on standard error.
    """
    if args.json:
        how = {"done": progress.done, "failed": progress.failed, "seconds": round(progress.seconds, 2)}
        print(json.dumps({**results, what: progress.total, **how}, ensure_ascii=False))
    else:
        print(f"{progress.done} of {progress.total} {what} in {clock(progress.seconds)}; {list(results.values())[-1]}")
        print(words)
    for line in progress.failed[:5]:
        print(f"kvorum: failed: {line}", file=sys.stderr)
    return 1 if progress.failed else 0


# -- what is made of it --------------------------------------------------------------------------------------------


def _report(args: Namespace) -> int:
    from kvorum.lab.report.report import write_report

    asked, folder, table = _results(args)
    return _print_paths(args, write_report(asked, table, folder, command=f"kvorum study run {args.file}"))


def _gallery(args: Namespace) -> int:
    from kvorum.lab.report.gallery import finished_studies, write_gallery

    found = finished_studies(Path(args.folder))
    if not found:
        raise BadRequest(f"{args.folder} holds no study (NAME.yaml) with finished runs beside it (NAME-results).")
    return _print_paths(args, write_gallery(found, Path(args.output)))


def _attention(args: Namespace) -> int:
    from kvorum.lab.report.report import write_attention

    asked, folder, table = _results(args)
    return _print_paths(args, write_attention(asked, table, folder))


def _variance(args: Namespace) -> int:
    from kvorum.lab.report.page import as_markdown
    from kvorum.lab.report.variance import pieces
    from kvorum.lab.statistics.variance import decompose

    _, folder, table = _results(args)
    found = decompose(table, draws=args.draws)
    text = as_markdown(pieces(found))
    (folder / "variance.md").write_text(text, encoding="utf-8")
    print(json.dumps(asdict(found)) if args.json else text)
    return 0


def _read(args: Namespace) -> tuple[Study, Path]:
    """The study, and the folder of its results."""
    from kvorum.lab.study.study import Study

    asked = Study.read(args.file)
    return asked, Path(f"{asked.name}-results" if args.output is None else args.output)


def _results(args: Namespace) -> tuple[Study, Path, DataFrame]:
    """The study, its folder and its table."""
    from kvorum.lab.study.table import finished

    asked, folder = _read(args)
    table = finished(asked, folder)
    if table is None:
        raise BadRequest(f"{folder} holds no finished runs of it; run the study first: kvorum study run {args.file}")
    return asked, folder, table


def _print_paths(args: Namespace, paths: list[Path]) -> int:
    print(json.dumps([str(path) for path in paths]) if args.json else "\n".join(map(str, paths)))
    return 0
