"""How the Python of a tick and the lookup of a prompt grow, with teams, blocks in a view, and prompts that are kept.

Usage: python benchmarks/growth.py [MODEL] [--repeats 30]

Teams of four behind a prompt of each team's own, on the fake backend without its forward (what stands above the seam);
plan and pages of a tick of a real model (smollm2-135m) as a share of the whole tick, with 1,024 blocks in one view and
with 1,024 blocks in the views of 64 teams; and the lookup of a prompt of 2,000 tokens among others that have the same
first thousand; and keeping a block on disk beside others that are kept there, and finding one. Slope: of the time's
logarithm over the size's, 1 where twice as much takes twice as long.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from python_part import Clock

from kvorum import Engine, Row, View
from kvorum.attention.plan import Planner
from kvorum.backends.fake import FakeBackend
from kvorum.engine import executor
from kvorum.kv import Block
from kvorum.runs.beginnings import Beginnings
from kvorum.runs.kept_prompts import Entry
from kvorum.store.kept_blocks import KeptBlocks

TEAMS = (1, 4, 16, 64, 256)
KEPT = (1, 16, 256, 4096)
Sized = dict[int, float]


def team(engine: Engine, shared: int, workers: int = 4) -> list[View]:
    """Views of workers who see each other behind ``shared`` closed blocks of two tokens."""
    closed = [engine.block() for _ in range(shared)]
    engine.forward([Row(View(block), ids=[5, 6]) for block in closed])
    for block in closed:
        block.seal()
    prompt = View(*closed)
    blocks = [engine.block() for _ in range(workers)]
    engine.forward([Row(prompt.then(block), ids=[7]) for block in blocks])
    return [prompt.then(*(one for one in blocks if one is not own), own) for own in blocks]


def ticks(engine: Engine, views: Sequence[View], repeats: int, clock: Clock) -> tuple[float, float]:
    """Medians over ticks of one token a row: seconds, and seconds that the clock counted."""
    took, counted = [], []
    rows = [Row(view, ids=[9]) for view in views]
    for _ in range(repeats + 3):  # the first ones make plans and copies
        before, started = clock.seconds, perf_counter()
        engine.forward(rows)
        took.append(perf_counter() - started)
        counted.append(clock.seconds - before)
    return statistics.median(took[3:]), statistics.median(counted[3:])


def teams(repeats: int) -> Sized:
    """Microseconds above the seam, a tick of so many teams of four."""
    found: Sized = {}
    for count in TEAMS:
        engine, clock = Engine(FakeBackend(kv_tokens=1 << 17)), Clock()
        views = [view for _ in range(count) for view in team(engine, shared=4)]
        with clock.leaving_out((FakeBackend, "forward")):
            whole, computed = ticks(engine, views, repeats, clock)
        found[count] = 1e6 * (whole - computed)
    return found


def planned(model: str, repeats: int) -> Iterable[tuple[str, float, float]]:
    """Milliseconds of a tick of the model, and the share of plan and pages, for 1,024 blocks spread in two ways."""
    for count, shared in ((1, 1024), (64, 16)):
        engine, clock = Engine.load(model, kv_tokens=1 << 15), Clock()
        views = [view for _ in range(count) for view in team(engine, shared)]
        with clock.leaving_out((Planner, "plan"), (executor, "admit"), (Block, "append")):
            whole, counted = ticks(engine, views, repeats, clock)
        yield f"teams of four: {count}, with {shared:,} blocks each", 1e3 * whole, counted / whole


def lookups(repeats: int) -> Sized:
    """Microseconds until the longest known beginning of a prompt is found among so many."""
    found: Sized = {}
    draw, loop = np.random.default_rng(0), asyncio.new_event_loop()
    rules = draw.integers(0, 49_152, 1000)

    def prompt() -> np.ndarray:
        return np.concatenate([rules, draw.integers(0, 49_152, 1000)])

    for count in KEPT:
        begun = Beginnings()
        for _ in range(count):
            begun.add(Entry(prompt(), View(), asyncio.Future(loop=loop), 0))
        asked = [prompt().tolist() for _ in range(repeats)]
        found[count] = 1e6 * statistics.median(timed(partial(begun.longest, ids)) for ids in asked)
    return found


def kept_blocks(repeats: int) -> tuple[Sized, Sized]:
    """Microseconds until a block of 16 tokens is kept on disk beside so many others, and until one of them is found."""
    saved, found = Sized(), Sized()
    engine, ids = Engine(FakeBackend(kv_tokens=1 << 12)), [5] * 16
    block = engine.block()
    engine.forward([Row(View(block), ids=ids)])
    for count in KEPT:
        with tempfile.TemporaryDirectory() as folder:
            kept, begins = KeptBlocks(Path(folder)), iter(range(count + repeats))
            for _ in range(count):  # they differ by what stands before them
                kept.save(engine, [next(begins)], block)
            saved[count] = 1e6 * statistics.median(
                timed(partial(kept.save, engine, [next(begins)], block)) for _ in range(repeats)
            )
            found[count] = 1e6 * statistics.median(
                timed(partial(kept.load, engine, [n % count], ids, "again")) for n in range(repeats)
            )
    return saved, found


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    started = perf_counter()
    call()
    return perf_counter() - started


def told(name: str, found: Sized) -> str:
    """A line of a table: microseconds by size, and how they grow at the larger half of the sizes."""
    sizes = sorted(found)[len(found) // 2 - (len(found) == 4) :]
    slope = np.polyfit(np.log(sizes), np.log([found[size] for size in sizes]), 1)[0]
    return f"{name}: " + ", ".join(f"{size:,}: {found[size]:,.0f} us" for size in found) + f"; slope {slope:.2f}"


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    print(told("a tick of teams of four, above the seam", teams(args.repeats)))
    for name, whole, share in planned(args.model, args.repeats):
        print(f"{name}: a tick {whole:.1f} ms, of which plan and pages {share:.1%}")
    print(told("longest known beginning of 2,000 tokens among kept prompts", lookups(args.repeats)))
    saved, found = kept_blocks(args.repeats)
    print(told("keeping a block on disk beside others", saved))
    print(told("finding one of them", found))


if __name__ == "__main__":
    main()
