"""What pruning saves, costs and does to the model: peak live tokens, re-encoded tokens, perplexity, by mode and k.

One fixed document of nested tasks is written under every setting (the worker is scripted), so that only the cache
differs; its tokens' log-probabilities are the model's. All settings run in the same ticks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from typing import Any

from kvorum import Budget, Engine, Result
from kvorum.programs.thread.thread import thread
from kvorum.runs.start import arun
from kvorum.store.events import note_data

ORDERS = {
    "first": [("pens", 3, 4), ("books", 2, 15), ("lamps", 1, 27), ("cups", 6, 5)],
    "second": [("chairs", 4, 30), ("pens", 10, 4), ("plates", 8, 6), ("books", 1, 15)],
    "third": [("desks", 1, 120), ("lamps", 2, 27), ("cups", 4, 5), ("forks", 12, 2)],
}
PROBLEM = (
    "A shop gets three orders. First: 3 pens at 4 euros, 2 books at 15, 1 lamp at 27, 6 cups at 5. "
    "Second: 4 chairs at 30, 10 pens at 4, 8 plates at 6, 1 book at 15. Third: 1 desk at 120, 2 lamps at 27, "
    "4 cups at 5, 12 forks at 2. What is the total of all orders?"
)


def document() -> str:
    """Two levels of subtasks: the orders, and the items of each."""
    tasks, total = [], 0
    for name, items in ORDERS.items():
        inner = []
        for what, count, price in items:
            inner.append(
                {
                    "thought": f"In the {name} order there are {count} {what} at {price} euros each. "
                    f"So {count} times {price} is {count * price}.",
                    "conclusion": f"The {what} of the {name} order cost {count * price} euros.",
                }
            )
        cost = sum(count * price for _, count, price in items)
        total += cost
        listed = " + ".join(str(count * price) for _, count, price in items)
        tasks.append(
            {
                "thought": f"Work out the {name} order, item by item.",
                "subtasks": inner,
                "conclusion": f"The {name} order costs {listed} = {cost} euros.",
            }
        )
    costs = [sum(count * price for _, count, price in items) for items in ORDERS.values()]
    whole = {
        "thought": "Work out the orders one by one, then add them up.",
        "subtasks": tasks,
        "conclusion": f"The orders cost {costs[0]} + {costs[1]} + {costs[2]} = {total} euros.",
    }
    return json.dumps({"reasoning": [whole], "answer": str(total)}, separators=(",", ":"))


SETTINGS: list[dict[str, Any]] = [
    {"mode": "none"},
    *({"mode": mode, "buffer": k} for mode in ("reencode", "splice", "gap") for k in (0, 1, 2)),
    {"mode": "reencode", "buffer": 0, "trigger": "conclusion"},
    {"mode": "gap", "buffer": 0, "trigger": "conclusion"},
]


def lines(result: Result) -> tuple[list[tuple[str, float]], dict[str, Any]]:
    """(text, log-probability) of each token, and the program's note."""
    rows = [event["rows"][0] for event in result.trace.events if event["event"] == "tick"]
    note = next(e for e in result.trace.events if e["event"] == "note" and e["kind"] == "thread")
    return [(row["text"], row["logprob"]) for row in rows], note_data(note)


def parents(tokens: list[tuple[str, float]]) -> list[float]:
    """The log-probabilities of what needs memory: the orders' conclusions, the last one, and the answer."""
    whole = "".join(piece for piece, _ in tokens)
    orders = [f'"conclusion":"The {name} order costs' for name in ORDERS]
    marks = [*orders, '"conclusion":"The orders cost', '"answer":"']
    spans = []
    for mark in marks:
        start = whole.index('":"', whole.index(mark)) + 3
        spans.append((start, whole.index('"', start)))
    at, found = 0, []
    for piece, chance in tokens:
        if any(start <= at < end for start, end in spans):
            found.append(chance)
        at += len(piece)
    return found


async def measure(engine: Engine) -> list[dict[str, Any]]:
    """One line per setting."""
    script = {"": [document()]}
    budget = Budget(ticks=10**6)
    runs = [arun(engine, thread, PROBLEM, budget=budget, script=script, **setting) for setting in SETTINGS]
    found = []
    for setting, result in zip(SETTINGS, await asyncio.gather(*runs), strict=True):
        tokens, note = lines(result)
        chances, needy = [chance for _, chance in tokens], parents(tokens)
        found.append(
            {
                **setting,
                "tokens": note["tokens"],
                "peak": note["peak"],
                "reencoded": note["reencoded"],
                "perplexity": math.exp(-sum(chances) / len(chances)),
                "conclusions": math.exp(-sum(needy) / len(needy)),
                "read": result.ledger.kv_read,
            }
        )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--exact", action="store_true", help="float32 weights, plain kernels")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    options: dict[str, Any] = {"dtype": "float32", "quantize": None} if given.exact else {}
    engine = Engine.load(given.model, kv_tokens=len(SETTINGS) * 2400, **options)
    found = asyncio.run(measure(engine))
    if given.json:
        print(json.dumps({"model": engine.about(), "settings": found}))
        return
    print(f"{engine.about()}\n{found[0]['tokens']} tokens written\n")
    print("| mode | k | trigger | peak live | re-encoded | perplexity | of conclusions |")
    print("|---|---|---|---|---|---|---|")
    for line in found:
        k = "-" if line["mode"] == "none" else line.get("buffer")
        print(
            f"| {line['mode']} | {k} | {line.get('trigger', 'list')} | {line['peak']} | {line['reencoded']} "
            f"({line['reencoded'] / line['tokens']:.2f}x) | {line['perplexity']:.3f} | {line['conclusions']:.3f} |"
        )


if __name__ == "__main__":
    main()
