"""What an edit of a view costs: fork, prune by splice and gap, undo, hand-over, at up to 32k tokens.

No model is needed: an edit touches no key or value. Median of many, in microseconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from kvorum.kv import Block, CacheShape, PagePool, Span, View
from kvorum.programs.thread_prune import Live


class Stand:
    """As much of a run as ``Live`` uses for edits: it makes blocks."""

    def __init__(self, tokens: int) -> None:
        self.pool = PagePool([CacheShape(1, 2, 2)], tokens + 4096)

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


def main() -> None:
    """Print the table."""
    print("| tokens | spans | fork | splice | gap | prune + undo, splice | prune + undo, gap | hand-over |")
    print("|---|---|---|---|---|---|---|---|")
    for tokens, spans in ((1024, 1), (8192, 1), (32768, 1), (32768, 16), (32768, 64)):
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

        def edit(mode: str, live: Live = live, lo: int = lo, hi: int = hi) -> None:
            async def both() -> None:
                (cut,) = await live.prune([(lo, hi)], mode)
                await live.undo(cut, mode)

            coroutine = both()
            try:
                coroutine.send(None)
            except StopIteration:
                return
            raise RuntimeError("an edit waited for something")

        line = [
            timed(lambda view=view, lo=lo, fresh=fresh: view.fork(lo, fresh)),  # type: ignore[misc]
            timed(lambda view=view, lo=lo, hi=hi: view.splice(lo, hi)),  # type: ignore[misc]
            timed(lambda view=view, lo=lo, hi=hi: view.gap(lo, hi)),  # type: ignore[misc]
            timed(lambda: edit("splice")),
            timed(lambda: edit("gap")),
            timed(lambda view=view, other=other: View(Span(other, 0, 64), *view.items)),  # type: ignore[misc]
        ]
        print(f"| {tokens} | {spans} | " + " | ".join(f"{value:.1f}" for value in line) + " |")


if __name__ == "__main__":
    main()
