"""The Python part of a tick: all of ``Run.tick`` but the native calls, for a team that sees each other.

``python benchmarks/python_part.py [WORKERS ...]`` prints, for each size of a team, the median over 400 ticks behind a
shared prompt of 256 words: on smollm2-135m without the compiled decoder and the native draws, and on the fake backend
without its forward. Needs kvorum-native.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import kvorum_native

from kvorum import Budget, Engine, Run, Sampling, View, program
from kvorum.backends.fake import FakeBackend

TICKS = 400


class Clock:
    """Seconds spent in calls that are not counted."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def leaving_out(self, *calls: tuple[object, str]) -> Iterator[None]:
        """Within it, the named methods are timed."""
        before = [getattr(owner, name) for owner, name in calls]
        for (owner, name), call in zip(calls, before, strict=True):
            setattr(owner, name, self._timed(call))
        try:
            yield
        finally:
            for (owner, name), call in zip(calls, before, strict=True):
                setattr(owner, name, call)

    def _timed(self, call: Callable[..., object]) -> Callable[..., object]:
        def timed(*given: object, **named: object) -> object:
            started = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def measure(engine: Engine, workers: int, clock: Clock) -> float:
    """Median microseconds of a tick, less what the clock left out."""
    found: list[float] = []

    @program("steady", "Everybody sees everybody and decodes.", workers=workers)
    async def steady(run: Run) -> str | None:
        prompt = run.block("prompt")
        await run.prefill(View(prompt), run.encode("word " * 256))
        blocks = [run.block(worker.name) for worker in run.workers]
        for at, worker in enumerate(run.workers):
            worker.view = View(prompt, *(block for block in blocks if block is not blocks[at]), blocks[at])
            worker.feed([100 + at])
        for _ in range(TICKS):
            before, started = clock.seconds, time.perf_counter()
            await run.tick(run.workers)
            found.append(time.perf_counter() - started - (clock.seconds - before))
        return None

    budget, sampling = Budget(ticks=TICKS + 5), Sampling(temperature=0.6, top_p=0.95)
    engine.run(steady, "Count.", workers=workers, budget=budget, sampling=sampling)
    return 1e6 * statistics.median(found)


def main() -> None:
    """Print a line for each team size."""
    clock = Clock()
    model = Engine.load("smollm2-135m", kv_tokens=16384)
    fake = Engine(FakeBackend(model.shape.vocab, kv_tokens=16384), model.tokenizer)
    for workers in [int(word) for word in sys.argv[1:]] or [1, 8]:
        with clock.leaving_out((kvorum_native.Decoder, "forward"), (kvorum_native.Draws, "run")):
            native = measure(model, workers, clock)
        with clock.leaving_out((FakeBackend, "forward")):
            above = measure(fake, workers, clock)
        print(f"{workers} workers: {native:.0f} us beside the native calls, {above:.0f} us above the seam")


if __name__ == "__main__":
    main()
