"""The parts of `kvorum bench`: what each is asked, and what it hands back to be printed and kept."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.bench.result import PEERS, Asked
from kvorum.cli.arguments import check_model
from kvorum.errors import BadRequest
from kvorum.jsontypes import JsonObject
from kvorum.wording import check_known

if TYPE_CHECKING:
    from rich.console import Console

    from kvorum.api import Engine
    from kvorum.bench.bound import Bound

JOBS = ("ask", "fields", "decide")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a part has found. ``stopped``: by Ctrl-C, so that it is not all."""

    told: JsonObject
    show: Callable[[Console], None]
    bounds: Sequence[Bound]
    stopped: bool = False


def ticks(args: Namespace) -> Measured | None:
    """Ticks and prefill beside other engines, and what may come with them. None: stopped before anything was known."""
    from kvorum.bench.session import ALSO, Session

    also = frozenset(name for name in ALSO if args.all or getattr(args, name))
    session = Session(_asked(args, "256,1024,4096", "1,2,4,8,16", 9, also), _progress)
    stopped = _until_stopped(session.run)
    if session.about is None:
        return None
    from kvorum.bench.bound import bounds_json
    from kvorum.bench.bounds import bounds
    from kvorum.bench.report import show

    bench, about = session.bench, session.about
    if args.plot is not None:
        from kvorum.bench.plot import plot

        plot(bench, about, Path(args.plot))
    found = bounds(bench, about)
    told = {**bench.as_json(about, command()), "bounds": bounds_json(found)}
    return Measured(told, lambda console: show(bench, about, console), found, stopped)


def caches(args: Namespace) -> Measured | None:
    """Ticks over caches of 32, 16 and 8 bits. None: stopped before anything was known."""
    from kvorum.bench.caches import CONTEXT, CachesSession
    from kvorum.bench.caches_report import caches_bounds, caches_json, show_caches

    session = CachesSession(_asked(args, str(CONTEXT), "1", 30), _progress)
    stopped = _until_stopped(session.run)
    if (about := session.about) is None:
        return None
    told = caches_json(session.result, about, command())
    show: Callable[[Console], None] = lambda console: show_caches(session.result, about, console)  # noqa: E731
    return Measured(told, show, caches_bounds(session.result), stopped)


def speculation(args: Namespace) -> Measured:
    """Workers with and without speculation."""
    from kvorum.bench.machine import describe_machine
    from kvorum.bench.speculation import measure
    from kvorum.bench.speculation_report import gains_bounds, gains_json, show_gains

    model = check_model(args.model)
    workers = numbers("--workers", args.workers or "1,4,8")
    found = measure(_engine(args, model, args.draft), args.rounds, _progress, workers)
    machine = describe_machine()
    told = gains_json(found, model, machine, command())
    return Measured(told, lambda console: show_gains(found, model, machine, console), gains_bounds(found, model))


def whole_jobs(args: Namespace) -> Measured:
    """The jobs of one shared text, beside a llama-server and the peers that were named."""
    from kvorum.bench.engines.registry import gguf_of
    from kvorum.bench.fanout.bounds import fanout_bounds
    from kvorum.bench.fanout.report import fanout_json, show_fanout
    from kvorum.bench.fanout.session import FanoutAsked, FanoutSession
    from kvorum.bench.machine import describe_machine

    others = () if args.peers is None else _peers(args.peers)
    if unfit := [name for name in others if name.startswith("llama.cpp")]:
        raise BadRequest(f"{unfit[0]} does no whole jobs; give --server, the path or URL of a llama-server.")
    model = check_model(args.model)
    asked = FanoutAsked(
        model=model,
        jobs=[job for job in JOBS if getattr(args, job)],
        gguf=gguf_of(model),
        server=args.server,
        slots=numbers("--slots", args.slots),
        others=others,
        rounds=args.rounds,
    )
    session = FanoutSession(asked, _engine(args, model), _progress)
    stopped = _until_stopped(session.run)
    found, machine = session.result, describe_machine()
    told = fanout_json(found, model, machine, command())
    bounds = fanout_bounds(found, model)
    return Measured(told, lambda console: show_fanout(found, model, machine, console), bounds, stopped)


def harness(args: Namespace) -> Measured:
    """The conversation of many turns whose memory and skills change."""
    from kvorum.bench.engines.registry import gguf_of
    from kvorum.bench.machine import describe_machine
    from kvorum.bench.talk.session import measure, show_talk, talk_json

    model = check_model(args.model)
    found = measure(_engine(args, model), server=args.server, gguf=gguf_of(model), tell=_progress)
    machine = describe_machine()
    told = talk_json(found, model, machine, command())
    return Measured(told, lambda console: show_talk(found, model, machine, console), ())


PARTS: Mapping[str, Callable[[Namespace], Measured | None]] = {
    "ticks": ticks,
    "caches": caches,
    "speculation": speculation,
    "jobs": whole_jobs,
    "harness": harness,
}


def command() -> list[str]:
    """As it was typed."""
    return ["kvorum", *sys.argv[1:]]


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Several whole numbers, as the option takes them. Raises BadRequest."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise BadRequest(f"{option} takes whole numbers above 0 with commas between, such as 1,4,8; not {text!r}.")
    return tuple(found)


def _asked(args: Namespace, contexts: str, workers: str, repeats: int, also: frozenset[str] = frozenset()) -> Asked:
    """What was asked for, and these where nothing was said."""
    return Asked(
        model=check_model(args.model),
        contexts=numbers("--context", args.context or contexts),
        workers=numbers("--workers", args.workers or workers),
        peers=PEERS if args.peers is None else _peers(args.peers),
        repeats=repeats if args.repeats is None else args.repeats,
        limit=args.limit,
        heavy=args.heavy,
        exact=args.exact,
        kv_dtype=args.kv_dtype,
        ignore_unknown=args.ignore_unknown,
        also=also,
    )


def _peers(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")] if text.strip() not in ("", "none") else []
    for name in names:
        check_known("peer", name, PEERS, also="none")
    return tuple(dict.fromkeys(names))


def _engine(args: Namespace, model: str, draft: str | None = None) -> Engine:
    from kvorum.api import Engine

    quantize, dtype = (None, "float32") if args.exact else ("auto", "auto")
    options = {"quantize": quantize, "dtype": dtype, "kv_dtype": args.kv_dtype}
    return Engine.load(model, kv_tokens=16384, draft=draft, **options)


def _until_stopped(run: Callable[[], None]) -> bool:
    """Whether it was stopped; what it had measured before is kept where it keeps it."""
    try:
        run()
    except KeyboardInterrupt:
        return True
    return False


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
