"""How kvorum's cost grows: with what a view's tokens lie in, with the context alone, and with teams in one engine."""

from __future__ import annotations

from functools import partial

from kvorum.bench.measure import Timing, interleaved
from kvorum.bench.result import Attention, Bench, Crowd
from kvorum.bench.sides.messages import Closed, ManyTeams, Opened, Read, Ticked
from kvorum.bench.sides.process import Process
from kvorum.bench.sides.side import tokens

SPANS = (1, 16, 64, 256)
SPANS_CONTEXT = 2048
SPANS_WORKERS = 4


def spans(ours: Process, bench: Bench, *, vocab: int, repeats: int, limit: float) -> None:
    """Four workers behind 2,048 tokens in one closed span and in many, in turns."""
    ours.ask(Read, "read", ids=tokens(vocab, SPANS_CONTEXT))
    for count in SPANS:
        ours.ask(Opened, "open", key=str(count), kind="spans", count=count, workers=SPANS_WORKERS)
    found = interleaved({str(count): partial(_tick, ours, str(count)) for count in SPANS}, repeats, limit)
    bench.spans = {int(key): Timing.of(seconds) for key, seconds in found.items()}
    for key in found:
        ours.ask(Closed, "close", key=key)


def attention(
    ours: Process, bench: Bench, *, vocab: int, context: int, workers: tuple[int, ...], repeats: int, limit: float
) -> None:
    """What ``context`` shared tokens add to a tick: each round's tick behind them less that behind one token."""
    spare = 2 * repeats + 2
    for length in (1, context):
        ours.ask(Read, "read", ids=tokens(vocab, length))
        for count in workers:
            ours.ask(Opened, "open", key=f"{count} {length}", kind="team", workers=count, spare=spare)
    keys = [f"{count} {length}" for count in workers for length in (1, context)]
    found = interleaved({key: partial(_tick, ours, key) for key in keys}, repeats, limit)
    for count in workers:
        pairs = zip(found[f"{count} {context}"], found[f"{count} 1"], strict=False)
        bench.attention.append(Attention(context, count, Timing.of([far - near for far, near in pairs])))
    for key in keys:
        ours.ask(Closed, "close", key=key)


def crowd(fresh: Process, bench: Bench, *, teams: int, workers: int, context: int, repeats: int) -> None:
    """Many teams in one engine. ``fresh``: a process that has not used its cache yet, so that its growth tells."""
    found = fresh.ask(ManyTeams, "crowd", teams=teams, workers=workers, context=context, repeats=repeats)
    bench.crowd = Crowd(
        teams,
        workers,
        context,
        tick=Timing.of(found.tick),
        plan=Timing.of(found.plan),
        first_plan=found.first_plan,
        slots=found.slots,
        computed=found.computed,
        resident=found.resident,
    )


def _tick(ours: Process, key: str) -> float:
    return ours.ask(Ticked, "tick", key=key).seconds
