"""`kvorum bench`: what a tick costs on this machine, beside other engines on the same weights."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.bench.result import PEERS, Asked
from kvorum.cli.arguments import check_model, check_writable
from kvorum.errors import BadRequest
from kvorum.jsontypes import JsonObject
from kvorum.wording import check_known

if TYPE_CHECKING:
    from kvorum.api import Engine

FANOUT_JOBS = ("ask", "fields", "decide")


def bench(args: Namespace) -> int:
    """Measure, print the tables (or JSON), and keep what was measured if it is stopped."""
    if args.draft is not None and not args.speculation:
        raise BadRequest("--draft is measured with --speculation; give both, or leave it out.")
    if args.harness:
        return _harness(args)
    if args.speculation:
        return _speculation(args)
    if any(getattr(args, job) for job in FANOUT_JOBS):
        return _whole_jobs(args)
    from kvorum.bench.session import ALSO, Session

    asked = Asked(
        model=check_model(args.model),
        contexts=_numbers("--context", args.context),
        workers=_numbers("--workers", args.workers or "1,2,4,8,16"),
        peers=PEERS if args.peers is None else _peers(args.peers),
        repeats=args.repeats,
        limit=args.limit,
        heavy=args.heavy,
        exact=args.exact,
        kv_dtype=args.kv_dtype,
        ignore_unknown=args.ignore_unknown,
        also=frozenset(name for name in ALSO if args.all or getattr(args, name)),
    )
    for option, value in (("--repeats", args.repeats), ("--limit", args.limit)):
        if not value >= 1:
            raise BadRequest(f"{option} must be 1 or more.")
    for file in (args.output, args.plot):
        if file is not None:
            check_writable(file)
    if args.plot is not None:
        from kvorum.bench.plot import check

        check(Path(args.plot))

    session = Session(asked, lambda words: print(words, file=sys.stderr, flush=True))
    stopped = False
    try:
        session.run()
    except KeyboardInterrupt:
        stopped = True
    if (about := session.about) is not None:  # else it was stopped before anything was known
        from rich.console import Console

        from kvorum.bench.report import show

        told = session.bench.as_json(about, _command())
        _keep(args, told)
        if args.plot is not None:
            from kvorum.bench.plot import plot

            plot(session.bench, about, Path(args.plot))
        _print(args, told, lambda: show(session.bench, about, Console(highlight=False)))
    return 130 if stopped else 0


def _whole_jobs(args: Namespace) -> int:
    """The jobs of one shared text, beside a llama-server and the peers that were named."""
    from rich.console import Console

    from kvorum.bench.engines.registry import gguf_of
    from kvorum.bench.fanout.report import fanout_json, show_fanout
    from kvorum.bench.fanout.session import FanoutAsked, FanoutSession
    from kvorum.bench.machine import describe_machine

    others = () if args.peers is None else _peers(args.peers)
    if unfit := [name for name in others if name.startswith("llama.cpp")]:
        raise BadRequest(f"{unfit[0]} does no whole jobs; give --server, the path or URL of a llama-server.")
    model = _checked_model(args)
    asked = FanoutAsked(
        model=model,
        jobs=[job for job in FANOUT_JOBS if getattr(args, job)],
        gguf=gguf_of(model),
        server=args.server,
        slots=_numbers("--slots", args.slots),
        others=others,
        rounds=args.rounds,
    )
    engine = _engine(args, model)
    session = FanoutSession(asked, engine, lambda words: print(words, file=sys.stderr, flush=True))
    stopped = False
    try:
        session.run()
    except KeyboardInterrupt:
        stopped = True
    machine = describe_machine()
    told = fanout_json(session.result, model, machine, _command())
    _hand_out(args, told, lambda: show_fanout(session.result, model, machine, Console(highlight=False)))
    return 130 if stopped else 0


def _harness(args: Namespace) -> int:
    """The conversation of many turns whose memory and skills change."""
    from rich.console import Console

    from kvorum.bench.engines.registry import gguf_of
    from kvorum.bench.machine import describe_machine
    from kvorum.bench.talk.session import measure, show_talk, talk_json

    model = _checked_model(args)
    engine = _engine(args, model)
    found = measure(engine, server=args.server, gguf=gguf_of(model), tell=lambda words: print(words, file=sys.stderr))
    machine = describe_machine()
    told = talk_json(found, model, machine, _command())
    _hand_out(args, told, lambda: show_talk(found, model, machine, Console(highlight=False)))
    return 0


def _speculation(args: Namespace) -> int:
    """Workers with and without speculation."""
    from rich.console import Console

    from kvorum.bench.machine import describe_machine
    from kvorum.bench.speculation import gains_json, measure, show_gains

    model = _checked_model(args)
    rows = _numbers("--workers", args.workers or "1,4,8")
    engine = _engine(args, model)
    found = measure(engine, args.rounds, lambda words: print(words, file=sys.stderr, flush=True), rows)
    machine = describe_machine()
    told = gains_json(found, model, machine, _command())
    _hand_out(args, told, lambda: show_gains(found, model, machine, Console(highlight=False)))
    return 0


def _checked_model(args: Namespace) -> str:
    """The model of a job that is measured in rounds. Raises BadRequest: it, the rounds or the output are no good."""
    if args.rounds < 1:
        raise BadRequest("--rounds must be 1 or more.")
    if args.output is not None:
        check_writable(args.output)
    return check_model(args.model)


def _engine(args: Namespace, model: str) -> Engine:
    from kvorum.api import Engine

    quantize, dtype = (None, "float32") if args.exact else ("auto", "auto")
    options = {"quantize": quantize, "dtype": dtype, "kv_dtype": args.kv_dtype}
    return Engine.load(model, kv_tokens=16384, draft=args.draft, **options)


def _command() -> list[str]:
    return ["kvorum", *sys.argv[1:]]


def _hand_out(args: Namespace, found: JsonObject, show: Callable[[], None]) -> None:
    """Keep what was measured, and print it."""
    _keep(args, found)
    _print(args, found, show)


def _keep(args: Namespace, found: JsonObject) -> None:
    if args.output is not None:
        Path(args.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _print(args: Namespace, found: JsonObject, show: Callable[[], None]) -> None:
    """As JSON where that is asked for, else by ``show``."""
    if args.json:
        print(json.dumps(found))
    else:
        show()


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise BadRequest(f"{option} takes whole numbers above 0 with commas between, such as 1,4,8; not {text!r}.")
    return tuple(numbers)


def _peers(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")] if text.strip() not in ("", "none") else []
    for name in names:
        check_known("peer", name, PEERS, also="none")
    return tuple(dict.fromkeys(names))
