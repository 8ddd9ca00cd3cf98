"""A comparison of caches as tables for people, as JSON, and beside its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from kvorum.bench.bound import Bound, bounds_json, bounds_table
from kvorum.bench.caches import CACHES, FULL, Caches
from kvorum.bench.result import About, Timing
from kvorum.bench.tables import figures_table, headline
from kvorum.jsontypes import Json, JsonObject

LONG = 7500
"""Tokens from which on a context is one of 8k: a model that reads no more than 8,192 has to write some itself."""
NOTE = (
    "Each cache is an engine in a process of its own, on the same weights; all take turns. Times as fast: float32's "
    "tick over that of the same round, the median of the rounds and its quartiles. MiB: the context's keys and values; "
    "and the most that the process held while it ticked, mapped weights, Python and libraries included."
)


def caches_bounds(found: Caches) -> list[Bound]:
    """What the cache of 8 bits must gain for one worker behind 8k tokens."""
    figures = []
    for one in found.ticks:
        if one.cache == "int8" and one.workers == 1 and one.context >= LONG:
            ratio = found.times_full("int8", one.context, 1)
            figures.append((ratio.median if ratio else None, f"{one.context:,} tokens"))
    return [Bound.worst("int8: W=1 behind 8k tokens, times float32", 1.3, figures, least=True)]


def caches_json(found: Caches, about: About, command: Sequence[str]) -> JsonObject:
    """All figures; times in seconds, memory in bytes."""
    ticks: list[Json] = []
    for one in found.ticks:
        ratio = found.times_full(one.cache, one.context, one.workers)
        ticks.append({**asdict(one), "times_float32": None if ratio is None else ratio._asdict()})
    return {
        "about": {**asdict(about), "command": list(command)},
        "bytes_per_token": found.bytes_per_token,
        "loaded": found.loaded,
        "reads": [asdict(one) for one in found.reads],
        "ticks": ticks,
        "bounds": bounds_json(caches_bounds(found)),
    }


def show_caches(found: Caches, about: About, console: Console) -> None:
    """Print the tables."""
    console.print(headline(about.model, about.machine))
    for table in (_reads(found), _ticks(found), bounds_table("bounds", caches_bounds(found))):
        if table.row_count:
            console.print(table)
    console.print(NOTE, style="dim")


def _reads(found: Caches) -> Table:
    table = figures_table(
        "reading the context", "cache", "tokens", "KiB a token", "MiB", "seconds", "tokens/s", "process MiB"
    )
    for one in found.reads:
        each = found.bytes_per_token[one.cache]
        table.add_row(
            one.cache,
            f"{one.context:,}",
            f"{each / 1024:.1f}",
            f"{each * one.context / 2**20:.0f}",
            f"{one.seconds.median:.2f}",
            f"{one.context / one.seconds.median:.0f}",
            f"{one.peak / 2**20:.0f}",
        )
    return table


def _ticks(found: Caches) -> Table:
    heads = ("cache", "tokens", "W", "ms", "least-most", "times as fast", "quartiles", "process MiB")
    table = figures_table("a tick, in turns", *heads)
    for one in sorted(found.ticks, key=lambda one: (one.context, one.workers, CACHES.index(one.cache))):
        timing = Timing.of(one.seconds)
        ratio = None if one.cache == FULL else found.times_full(one.cache, one.context, one.workers)
        table.add_row(
            one.cache,
            f"{one.context:,}",
            str(one.workers),
            f"{timing.median * 1e3:.1f}",
            f"{timing.min * 1e3:.1f}-{timing.max * 1e3:.1f}",
            "" if ratio is None else f"{ratio.median:.2f}",
            "" if ratio is None else f"{ratio.low:.2f}-{ratio.high:.2f}",
            f"{one.peak / 2**20:.0f}",
        )
    return table
