"""What a tap on the attention costs: ticks with and without one, by turns.

    python benchmarks/tap.py [MODEL] [THREADS]

Each of 1, 4 and 8 workers sees 1,024 shared tokens (16 finished steps of 32 tokens among them, by all in turn), the
others' 64 tokens and its own. Medians over 60 ticks of each kind.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import torch

from kvorum import Engine, Row, View
from kvorum.engine.owners import Owners

SHARED, OWN, TICKS = 1024, 64, 60


def measure(engine: Engine, workers: int) -> tuple[float, float]:
    """Median milliseconds of a tick, without a tap and with one."""
    owners, history = Owners(1), engine.block("history")
    engine.forward([Row(View(history), ids=range(1000, 1000 + SHARED))])
    for step in range(16):
        start = SHARED // 2 + 32 * step
        owners.credit(history, f"worker{step % workers}", start, start + 32)
    blocks = [engine.block(f"worker{at}") for at in range(workers)]
    views = [View(history, *(b for b in blocks if b is not mine), mine) for mine in blocks]
    for block, view in zip(blocks, views, strict=True):
        owners.credit(block, block.name)
        engine.forward([Row(view, ids=range(2000, 2000 + OWN))])
    times: dict[bool, list[float]] = {False: [], True: []}
    for tick in range(2 * TICKS + 10):
        tapped = tick % 2 == 0
        started = time.perf_counter()
        engine.forward([Row(view, ids=[500 + tick]) for view in views], owners=owners if tapped else None)
        if tick >= 10:
            times[tapped].append(1000 * (time.perf_counter() - started))
    return median(times[False]), median(times[True])


def main() -> None:
    """Print a line for each team size."""
    name = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m"
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else torch.get_num_threads())
    engine = Engine.load(name, kv_tokens=16384)
    print(f"{name}, {engine.weights} weights, {torch.get_num_threads()} threads")
    for workers in (1, 4, 8):
        plain, tapped = measure(engine, workers)
        print(f"{workers} workers: {plain:.2f} ms, with a tap {tapped:.2f} ms, {100 * (tapped / plain - 1):+.1f}%")


if __name__ == "__main__":
    main()
