"""What an edit of a view costs: fork, prune by splice and gap, undo, hand-over, at up to 32k tokens in 1024 spans.

No model is needed: an edit touches no key or value. Median of many, in microseconds. Fork, splice and gap are those of
a view; prune and undo are those of a document (``thread``), which keeps account of what is cut.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kvorum.harness.live_text import Live, Mode
from kvorum.kv import Block, CacheConfig, CacheShape, PagePool, Span, View

T = TypeVar("T")


class Stand:
    """As much of a run as ``Live`` uses for edits: it makes blocks."""

    def __init__(self, tokens: int) -> None:
        self.pool = PagePool(CacheConfig((CacheShape(1, 2, 2),), tokens + 4096))

    def block(self, name: str = "") -> Block:
        """A fresh block."""
        return Block(self.pool, name)


def timed(do: Callable[[], Any], times: int = 300) -> float:
    """Median microseconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        do()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6


def pruned(live: Live, lo: int, hi: int, mode: Mode, times: int = 300) -> tuple[float, float]:
    """Median microseconds of taking log tokens ``lo`` to ``hi`` out, and of putting them back."""
    out, back = [], []
    for _ in range(times):
        start = time.perf_counter()
        (cut,) = at_once(live.prune([(lo, hi)], mode))
        between = time.perf_counter()
        at_once(live.undo(cut, mode))
        out.append(between - start)
        back.append(time.perf_counter() - between)
    return statistics.median(out) * 1e6, statistics.median(back) * 1e6


def at_once(edit: Coroutine[Any, Any, T]) -> T:
    """What an edit returns that must not wait for anything."""
    try:
        edit.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise RuntimeError("an edit waited for something")


def main() -> None:
    """Print the table."""
    print("| tokens | spans | fork | splice | gap | prune, splice | undo | prune, gap | undo | hand-over |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for tokens, spans in ((1024, 1), (32768, 1), (32768, 16), (32768, 64), (32768, 256), (32768, 1024)):
        run: Any = Stand(tokens)
        live = Live(run, "live", View(run.block()))
        for _ in range(spans):
            own = live.view.own
            assert own is not None
            own.append(range(tokens // spans))
            live.log += list(range(tokens // spans))
            live.open_block()
        view, other, fresh = live.view, run.block(), run.block()
        other.append(range(64))
        lo, hi = tokens // 3, tokens // 2

        line = [
            timed(lambda view=view, lo=lo, fresh=fresh: view.fork(lo, fresh)),  # type: ignore[misc]
            timed(lambda view=view, lo=lo, hi=hi: view.splice(lo, hi)),  # type: ignore[misc]
            timed(lambda view=view, lo=lo, hi=hi: view.gap(lo, hi)),  # type: ignore[misc]
            *pruned(live, lo, hi, "splice"),
            *pruned(live, lo, hi, "gap"),
            timed(lambda view=view, other=other: View(Span(other, 0, 64), *view.items)),  # type: ignore[misc]
        ]
        print(f"| {tokens} | {spans} | " + " | ".join(f"{value:.1f}" for value in line) + " |")


if __name__ == "__main__":
    main()
