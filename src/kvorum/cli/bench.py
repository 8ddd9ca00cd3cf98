"""`kvorum bench`: what a tick costs on this machine, beside other engines on the same weights."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from kvorum.bench.result import PEERS, About, Asked, Bench
from kvorum.cli.arguments import check_model, check_writable
from kvorum.errors import BadRequest
from kvorum.wording import check_known

FANOUT_JOBS = ("ask", "fields", "decide")


def bench(args: Namespace) -> int:
    """Measure, print the tables (or JSON), and keep what was measured if it is stopped."""
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
        workers=_numbers("--workers", args.workers),
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
    if session.about is not None:  # else it was stopped before anything was known
        _hand_out(args, session.bench, session.about)
    return 130 if stopped else 0


def _whole_jobs(args: Namespace) -> int:
    """The jobs of one shared text, beside a llama-server and the peers that were named."""
    from rich.console import Console

    from kvorum.api import Engine
    from kvorum.bench.engines.registry import gguf_of
    from kvorum.bench.fanout.report import fanout_json, show_fanout
    from kvorum.bench.fanout.session import FanoutAsked, FanoutSession
    from kvorum.bench.machine import describe_machine

    others = () if args.peers is None else _peers(args.peers)
    if unfit := [name for name in others if name.startswith("llama.cpp")]:
        raise BadRequest(f"{unfit[0]} does no whole jobs; give --server, the path or URL of a llama-server.")
    if args.rounds < 1:
        raise BadRequest("--rounds must be 1 or more.")
    if args.output is not None:
        check_writable(args.output)
    model = check_model(args.model)
    asked = FanoutAsked(
        model=model,
        jobs=[job for job in FANOUT_JOBS if getattr(args, job)],
        gguf=gguf_of(model),
        server=args.server,
        slots=_numbers("--slots", args.slots),
        others=others,
        rounds=args.rounds,
    )
    quantize = None if args.exact else "auto"
    engine = Engine.load(
        model, kv_tokens=16384, quantize=quantize, dtype="float32" if args.exact else "auto", kv_dtype=args.kv_dtype
    )
    session = FanoutSession(asked, engine, lambda words: print(words, file=sys.stderr, flush=True))
    stopped = False
    try:
        session.run()
    except KeyboardInterrupt:
        stopped = True
    machine = describe_machine()
    found = fanout_json(session.result, model, machine, ["kvorum", *sys.argv[1:]])
    if args.output is not None:
        Path(args.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(found))
    else:
        show_fanout(session.result, model, machine, Console(highlight=False))
    return 130 if stopped else 0


def _harness(args: Namespace) -> int:
    """The conversation of many turns whose memory and skills change."""
    from rich.console import Console

    from kvorum.api import Engine
    from kvorum.bench.engines.registry import gguf_of
    from kvorum.bench.machine import describe_machine
    from kvorum.bench.talk.session import measure, show_talk, talk_json

    if args.rounds < 1:
        raise BadRequest("--rounds must be 1 or more.")
    if args.output is not None:
        check_writable(args.output)
    model = check_model(args.model)
    quantize = None if args.exact else "auto"
    engine = Engine.load(
        model, kv_tokens=16384, quantize=quantize, dtype="float32" if args.exact else "auto", kv_dtype=args.kv_dtype
    )
    found = measure(engine, server=args.server, gguf=gguf_of(model), tell=lambda words: print(words, file=sys.stderr))
    machine = describe_machine()
    as_json = talk_json(found, model, machine, ["kvorum", *sys.argv[1:]])
    if args.output is not None:
        Path(args.output).write_text(json.dumps(as_json, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(as_json))
    else:
        show_talk(found, model, machine, Console(highlight=False))
    return 0


def _speculation(args: Namespace) -> int:
    """One worker with and without speculation."""
    from rich.console import Console

    from kvorum.api import Engine
    from kvorum.bench.machine import describe_machine
    from kvorum.bench.speculation import gains_json, measure, show_gains

    if args.rounds < 1:
        raise BadRequest("--rounds must be 1 or more.")
    if args.output is not None:
        check_writable(args.output)
    model = check_model(args.model)
    engine = Engine.load(model, kv_tokens=8192, quantize=None if args.exact else "auto", kv_dtype=args.kv_dtype)
    found = measure(engine, args.rounds, lambda words: print(words, file=sys.stderr, flush=True))
    machine = describe_machine()
    as_json = gains_json(found, model, machine, ["kvorum", *sys.argv[1:]])
    if args.output is not None:
        Path(args.output).write_text(json.dumps(as_json, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(as_json))
    else:
        show_gains(found, model, machine, Console(highlight=False))
    return 0


def _hand_out(args: Namespace, bench: Bench, about: About) -> None:
    result = bench.as_json(about, ["kvorum", *sys.argv[1:]])
    if args.output is not None:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.plot is not None:
        from kvorum.bench.plot import plot

        plot(bench, about, Path(args.plot))
    if args.json:
        print(json.dumps(result))
        return
    from rich.console import Console

    from kvorum.bench.report import show

    show(bench, about, Console(highlight=False))


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
