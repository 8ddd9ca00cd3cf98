"""What masks cost: the share of a tick that is spent on them beyond the forward, beside which they are made.

Usage: python benchmarks/masks.py MODEL [--rows 8] [--ticks 60] [--rounds 3]

All rows write under one JSON schema behind a shared prompt, in the same ticks, and begin anew when a text is complete.
``beside``: as it is; what is spent is the wait for masks behind the forward. ``before``: the masks are made before the
forward; what is spent is all their time. ``free``: the same rows without a grammar.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from unittest.mock import patch

from kvorum import Budget, Engine, Grammar, Run, Sampling, View, program
from kvorum.errors import GrammarError
from kvorum.sampling.matcher import Masks, Matcher, begin_masks
from kvorum.sampling.sampling import Bits

ORDER = Grammar.json(
    {
        "type": "object",
        "properties": {
            "customer": {"type": "string", "minLength": 3, "maxLength": 40},
            "city": {"enum": ["Berlin", "Bern", "Paris", "Prague"]},
            "items": {
                "type": "array",
                "minItems": 3,
                "maxItems": 5,
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "maxLength": 30},
                        "count": {"type": "integer", "minimum": 1, "maximum": 500},
                        "price": {"type": "number"},
                    },
                    "required": ["name", "count", "price"],
                    "additionalProperties": False,
                },
            },
            "remark": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 60}]},
        },
        "required": ["customer", "city", "items", "remark"],
        "additionalProperties": False,
    }
)


@dataclass(slots=True)
class Clock:
    """How masks are made in one way of running, and the seconds that takes."""

    name: str
    grammar: Grammar | None = ORDER
    beside: bool = True
    spent: list[float] = field(default_factory=list)
    """Of each tick: what was waited for masks or, not ``beside``, what making them took."""
    ticks: list[float] = field(default_factory=list)

    def begin(self, matchers: Sequence[Matcher]) -> Masks:
        """As ``begin_masks``, timed; not ``beside``, the masks are there when it returns."""
        started = time.perf_counter()
        masks = begin_masks(matchers)
        if not self.beside:
            masks()
            self.spent.append(time.perf_counter() - started)
            return masks
        first = len(self.spent)

        def waited() -> Sequence[Bits | GrammarError]:
            started = time.perf_counter()
            found = masks()
            if len(self.spent) == first:
                self.spent.append(time.perf_counter() - started)
            return found

        return waited


def measure(engine: Engine, clock: Clock, rows: int, ticks: int, seed: int) -> None:
    """One run in which ``rows`` write, text after text."""
    sampling = Sampling(temperature=0.7, grammar=clock.grammar, banned=() if clock.grammar else sorted(engine.ends))

    @program("orders", "Everybody writes orders.", workers=rows)
    async def orders(run: Run) -> str | None:
        prompt = run.block("prompt")
        words = run.chat(("user", "Invent an order of a shop, as JSON."))
        await run.prefill(View(prompt), words[:-1])
        for worker in run.workers:
            worker.view = View(prompt, run.block(worker.name))
            worker.feed(words[-1:])
        for _ in range(ticks):
            started = time.perf_counter()
            await run.tick(run.workers)
            clock.ticks.append(time.perf_counter() - started)
            for worker in run.workers:
                if worker.complete:
                    worker.begin(sampling)
        return None

    with patch("kvorum.engine.executor.begin_masks", clock.begin):
        engine.run(orders, "Orders.", workers=rows, budget=Budget(ticks=ticks + 5), sampling=sampling, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--ticks", type=int, default=60, help="of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way, in turns")
    args = parser.parse_args()
    engine = Engine.load(args.model, kv_tokens=16384)
    clocks = [Clock("beside"), Clock("before", beside=False), Clock("free", grammar=None)]
    for seed in range(args.rounds):
        for clock in clocks:
            measure(engine, clock, args.rows, args.ticks, seed)
    for clock in clocks:
        line = f"{clock.name}: a tick takes {1e3 * median(clock.ticks):.1f} ms"
        if clock.grammar is not None:
            shares = [spent / tick for spent, tick in zip(clock.spent, clock.ticks, strict=True)]
            late = 1e3 * sorted(clock.spent)[int(0.95 * len(shares))]
            line += f", of which for masks {1e3 * median(clock.spent):.2f} ms ({median(shares):.2%}; "
            line += f"of all ticks {sum(clock.spent) / sum(clock.ticks):.2%}); of 20 ticks one over {late:.2f} ms"
        print(line, flush=True)


if __name__ == "__main__":
    main()
