"""What writing side by side brings: first words of async_reasoning, and a text of six sections by outline.

Usage: python benchmarks/side_by_side.py first|outline MODEL [--items 12] [--think 96] [--tokens 48] --output FILE.jsonl

first: of each problem, async_reasoning as it is and thinking-then-writing, which goes first in turns: ticks and seconds
until the first word of the answer, and what a tick takes with both streams and with one, in the same runs.
outline: of each subject, six sections side by side (seeing the outline, each other, or neither) against one worker that
writes as many tokens in one go: seconds, words, the share of runs of five words that stand in more than one section,
the share of sections that stray from their point of the outline (``kept_headings``, beside what is planted),
and, within each item, the time for equal words beside that of one go.
Items are kept in FILE as they come, and the same command goes on behind them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kept_headings import judged

from kvorum import Budget, Engine, Result, Sampling, programs
from kvorum.harness.dialogue_rules import word_runs
from kvorum.store.events import Event
from kvorum.tasks import families
from kvorum.tasks.everyday.words import TOWNS

Record = dict[str, dict[str, float]]
EQUAL = "seconds for 100 words"
HEADED = re.compile(r"(?ms)^## \d+\. ([^\n]+)\n(.*?)(?=^## \d+\. |\Z)")
"""A section of such a text: its heading, and what stands under it."""
SHARES = ("repeated", "stray")
"""Of these a table has means; of the others medians."""


class Clock:
    """When the first word of a worker came, and what ticks of one and of two rows took."""

    def __init__(self, worker: str) -> None:
        self.worker, self.ticks, self.first, self.seconds = worker, 0, math.nan, math.nan
        self.took: dict[int, list[float]] = {1: [], 2: []}
        self.start = self.last = time.perf_counter()

    def hear(self, event: Event) -> None:
        """Take note of an event of the run."""
        now = time.perf_counter()
        if event["event"] in ("tick", "forward"):
            self.ticks += 1
        if event["event"] == "tick":
            rows = event["rows"]
            if len(rows) in self.took and all(row["fed"] == 1 for row in rows):
                self.took[len(rows)].append(now - self.last)
            if math.isnan(self.first) and any(row["worker"] == self.worker and row["text"].strip() for row in rows):
                self.first, self.seconds = self.ticks, now - self.start
        self.last = now


def first_words(engine: Engine, number: int, think: int, tokens: int) -> Record:
    """One problem, both orders."""
    item = families.make("bundle", number, 1, parts=1)
    arms: Record = {}
    orders = ("together", "then") if number % 2 else ("then", "together")
    for order in orders:
        clock = Clock("Writer")
        result = engine.run(
            programs.async_reasoning,
            item.task(whole=True),
            budget=Budget(ticks=2 * (think + tokens)),
            sampling=Sampling(),
            listener=clock.hear,
            order=order,
            think=think,
        )
        found = {"first tick": clock.first, "first second": clock.seconds, "ticks": clock.ticks}
        found |= {f"tick of {rows}": statistics.median(took) for rows, took in clock.took.items() if len(took) > 4}
        arms[order] = {**found, "seconds": result.seconds, "words": len((result.answer or "").split())}
    return arms


def six_sections(engine: Engine, number: int, think: int, tokens: int) -> Record:
    """One subject: outlines of six sections, and as many tokens in one go."""
    task = f"Write a guide for visitors of {TOWNS[number % len(TOWNS)]}, a small town by a river."
    arms: Record = {}
    parts: dict[str, Sequence[tuple[str, str]]] = {}
    done, ways = 0, ("outline", "live", "none")
    for sees in (ways[(number + at) % 3] for at in range(3)):  # none is always the first to run
        result = engine.run(
            programs.outline,
            task,
            budget=Budget(ticks=600),
            sampling=Sampling(temperature=0.6, seed=number),
            sees=sees,
            least=6,
            sections=6,
            tokens=tokens,
        )
        sections = [worker.text for worker in result.workers[1:]]
        arms[sees] = _of_text(result, sections)
        parts[sees] = HEADED.findall(result.answer or "")
        done = max(done, sum(len(worker.ids) for worker in result.workers))
    result = engine.run(
        programs.plain,
        f"{task} Write six sections, each with a heading that begins with ##.",
        budget=Budget(decoded=done),
        sampling=Sampling(temperature=0.6, seed=number),
    )
    arms["one go"] = _of_text(
        result, [part for part in re.split(r"^#+ ", result.answer or "", flags=re.M) if part.strip()]
    )
    alone = arms["one go"][EQUAL]
    for arm in arms.values():
        arm["time beside one go"] = arm[EQUAL] / alone
    for name, told in judged(engine, parts, number).items():
        arms.setdefault(name, {}).update(told)
    return arms


def _of_text(result: Result, sections: Sequence[str]) -> dict[str, float]:
    counts = Counter(run for section in sections for run in word_runs(section, 5))
    words = sum(len(section.split()) for section in sections)
    repeated = sum(many > 1 for many in counts.values()) / len(counts) if counts else 0.0
    found = {"seconds": result.seconds, "ticks": result.ledger.ticks, "words": words, "repeated": repeated}
    return found | {EQUAL: 100 * result.seconds / max(1, words)}


def table(records: Sequence[Record]) -> str:
    """By arm, medians over items, and of shares means."""
    names = list(dict.fromkeys(name for record in records for arm in record.values() for name in arm))
    lines = [f"| arm | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for arm in sorted(records[0]):
        values = [[record[arm][name] for record in records if name in record[arm]] for name in names]
        known = [[value for value in column if not math.isnan(value)] for column in values]
        middles = [statistics.fmean if name in SHARES else statistics.median for name in names]
        shown = [f"{middle(one):.3g}" if one else "" for middle, one in zip(middles, known, strict=True)]
        lines.append(f"| {arm} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("first", "outline"))
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=12)
    parser.add_argument("--think", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    measure = first_words if given.part == "first" else six_sections
    done = given.output.read_text(encoding="utf-8").splitlines() if given.output.exists() else []
    begun = time.monotonic()
    if len(done) < given.items:
        ahead = given.part == "outline"  # first compares ticks, of which speculation takes some together
        engine = Engine.load(given.model, kv_tokens=8192, speculate=ahead)
        engine.run(programs.plain, "Say hello.", budget=Budget(ticks=8))  # what is made at the first use is made
        with given.output.open("a", encoding="utf-8") as file:
            for number in range(len(done), given.items):
                if time.monotonic() - begun > given.seconds:
                    break
                done.append(json.dumps(measure(engine, number, given.think, given.tokens)))
                print(done[-1], file=file, flush=True)
    print(f"{given.model}, {len(done)} items, medians, of shares means\n\n{table([json.loads(line) for line in done])}")


if __name__ == "__main__":
    main()
