"""`kvorum bench`: what a tick costs on this machine, beside other engines on the same weights."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from kvorum.cli.arguments import check_model, check_writable
from kvorum.cli.bench_parts import JOBS, PARTS, Measured, command, numbers
from kvorum.errors import BadRequest, BenchError, KvorumError
from kvorum.jsontypes import Json, JsonObject
from kvorum.wording import first_line

ALONE = ("harness", "speculation", "caches", "everything")
"""Options that take the place of ticks and prefill."""


def bench(args: Namespace) -> int:
    """Measure, print the tables (or JSON), and keep what was measured if it is stopped."""
    _check(args)
    if args.everything:
        return _everything(args)
    asked = _alone(args)
    name = asked[0] if asked else "jobs" if any(getattr(args, job) for job in JOBS) else "ticks"
    measured = PARTS[name](args)
    if measured is None:  # it was stopped before anything was known
        return 130
    _keep(args, measured.told)
    if args.json:
        print(json.dumps(measured.told))
    else:
        _show(measured)
    return 130 if measured.stopped else 0


def _everything(args: Namespace) -> int:
    """One part after the other; what was measured is kept behind each. At the end all bounds, in one table.

    The exit code is 1 if a part failed, or none could be measured.
    """
    words = vars(args) | {"all": True} | dict.fromkeys(JOBS, True)
    found: dict[str, Measured] = {}
    left_out: dict[str, str] = {}
    failed = stopped = False
    for name, part in PARTS.items():
        given = Namespace(**words)
        if name == "jobs":
            given.peers = None  # whole jobs are beside a llama-server; transformers and vLLM would take hours
        try:
            measured = part(given)
        except KeyboardInterrupt:
            measured = None
        except KvorumError as error:
            failed = failed or isinstance(error, BenchError)  # others say what this model cannot do
            left_out[name] = first_line(error)
            continue
        if measured is not None:
            found[name] = measured
            if not args.json:
                _show(measured)
        _keep(args, _all_of_it(args, found, left_out))
        stopped = measured is None or measured.stopped
        if stopped:
            break
    told = _all_of_it(args, found, left_out)
    _keep(args, told)
    if args.json:
        print(json.dumps(told))
    else:
        _show_bounds(found, left_out)
    return 130 if stopped else int(failed or not found)


def _all_of_it(args: Namespace, found: dict[str, Measured], left_out: dict[str, str]) -> JsonObject:
    parts: dict[str, Json] = {name: measured.told for name, measured in found.items()}
    return {"model": args.model, "command": command(), "parts": parts, "left_out": left_out}


def _show(measured: Measured) -> None:
    from rich.console import Console

    measured.show(Console(highlight=False))


def _show_bounds(found: dict[str, Measured], left_out: dict[str, str]) -> None:
    from rich.console import Console

    from kvorum.bench.bound import bounds_table

    console = Console(highlight=False)
    all_of_them = [
        replace(bound, what=f"{name}: {bound.what}") for name, measured in found.items() for bound in measured.bounds
    ]
    console.print(bounds_table("all bounds", all_of_them))
    for name, why in left_out.items():
        console.print(f"Left out: {name}: {why}", markup=False)


def _alone(args: Namespace) -> list[str]:
    return [name for name in ALONE if getattr(args, name)]


def _check(args: Namespace) -> None:
    """What would be no good an hour later is refused now. Raises BadRequest."""
    asked = _alone(args)
    if len(asked) > 1:
        raise BadRequest(f"--{asked[0]} and --{asked[1]} are measured one at a time; --everything measures all.")
    if args.draft is not None and not (args.speculation or args.everything):
        raise BadRequest("--draft is measured with --speculation; give both, or leave it out.")
    if unused := [name for name in JOBS if getattr(args, name) and asked]:
        raise BadRequest(f"--{unused[0]} and --{asked[0]} are measured one at a time; --everything measures all.")
    if args.plot is not None and (asked or any(getattr(args, job) for job in JOBS)) and not args.everything:
        raise BadRequest("--plot is a picture of ticks; give it without the other parts, or with --everything.")
    if args.kv_dtype != "auto" and args.caches:
        raise BadRequest("--caches compares all caches; leave --kv-dtype out.")
    for option, value in (("--repeats", args.repeats), ("--limit", args.limit), ("--rounds", args.rounds)):
        if value is not None and not value >= 1:
            raise BadRequest(f"{option} must be 1 or more.")
    for option, text in (("--context", args.context), ("--workers", args.workers), ("--slots", args.slots)):
        if text is not None:
            numbers(option, text)
    check_model(args.model)
    if args.draft is not None:
        check_model(args.draft)
    if args.server:
        from kvorum.bench.fanout.llama_server import check_server

        check_server(args.server)
    for file in (args.output, args.plot):
        if file is not None:
            check_writable(file)
    if args.plot is not None:
        from kvorum.bench.plot import check

        check(Path(args.plot))


def _keep(args: Namespace, found: JsonObject) -> None:
    if args.output is not None:
        Path(args.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
