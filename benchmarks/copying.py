"""How often a team writes the same thing twice: different items per tick of four workers that write one list.

``python benchmarks/copying.py -m qwen2.5-coder-1.5b -o copying.jsonl`` goes on where it was; without ``--seeds`` it
prints the table of what is there. Twelve topics, forty ticks, temperature 0.8. An item is a line of a worker's text,
without marks and numbers, in lower case; what was cut in the middle at the end does not count.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kvorum import Budget, Engine, Sampling, programs
from kvorum.tasks.topics import PROMPT, TOPICS

TICKS = 40
COUNTED = ("different", "items", "ticks")
SEEN: dict[str, dict[str, Any]] = {
    "four that see nobody": {"channel": "none"},
    "four that see each other": {},
    "four that see finished steps": {"layout": "interleaved"},
}
ARMS: dict[str, dict[str, Any]] = {"one worker": {"workers": 1}} | {
    f"{name}, and copy no {size} tokens" if size else name: {**seen, "no_copied_ngram": size}
    for name, seen in SEEN.items()
    for size in ((0, 2, 3, 4) if not seen else (0, 3))
}


def items(text: str) -> list[str]:
    """The items of a worker's text; the last line is unfinished."""
    lines = [re.sub(r"^[\W\d_]+|\W+$", "", line).lower() for line in text.split("\n")[:-1]]
    return [line for line in lines if line]


def played(engine: Engine, name: str, topic: str, seed: int) -> dict[str, Any]:
    """One run of an arm, as a row of the file."""
    result = engine.run(
        programs.hogwild,
        PROMPT.format(topic),
        **{"workers": 4, "answer": "text", "openings": False, "loops": "go_on", **ARMS[name]},
        sampling=Sampling(temperature=0.8),
        budget=Budget(ticks=TICKS),
        seed=seed,
    )
    written = [entry for worker in result.workers for entry in items(worker.text)]
    return {
        "arm": name,
        "topic": topic,
        "seed": seed,
        "ticks": result.ledger.ticks,
        "items": len(written),
        "different": len(set(written)),
    }


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Per arm: different items per tick and what part of all items is a repeat, with intervals over topics."""
    yield "| four workers, one list | runs | different items per tick | repeats |"
    yield "|---|---|---|---|"
    draw = np.random.default_rng(0)
    for name in ARMS:
        mine = [row for row in rows if row["arm"] == name]
        topics = [[row for row in mine if row["topic"] == topic] for topic in TOPICS]
        counts = [[sum(row[key] for row in group) for key in COUNTED] for group in topics if group]
        if not counts:
            continue
        sums = np.array(counts)
        different, written, ticks = sums[draw.integers(0, len(sums), (2000, len(sums)))].sum(1).T
        all_different, all_written, all_ticks = sums.sum(0)
        rate = shown(all_different / all_ticks, different / ticks)
        yield f"| {name} | {len(mine)} | {rate} | {shown(1 - all_different / all_written, 1 - different / written)} |"


def shown(figure: float, drawn: np.ndarray) -> str:
    """A figure with the interval of its redrawn values, at 95%."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{figure:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-1.5b")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=0, help="runs of each arm and topic")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(row["arm"], row["topic"], row["seed"]) for row in rows}
    engine = Engine.load(given.model, kv_tokens=8192) if given.seeds else None
    for seed in range(given.seeds):
        for topic in TOPICS:
            for name in ARMS:
                if (name, topic, seed) in done or engine is None:
                    continue
                rows.append(played(engine, name, topic, seed))
                with given.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
