"""How often decisions are right, and how often they change when the listed options are put in another order.

Usage: python benchmarks/decisions.py MODEL [--items 200] [--arms one,views] [--reports 5] [--output FILE.jsonl]

Each item is a short text of one of eight classes (``kvorum.tasks.decisions``), asked with the options as they stand,
reversed and shuffled, in one call for each way of asking. ``changed``: how often an answer is another one than with the
options as they stand. Statements are of reports (``kvorum.tasks.reports``), twenty of each, half of them true. What is
done stands in the output, a line for each item and way, and is not done again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypedDict

from kvorum import Choice, Engine, Option
from kvorum.harness.decisions.calibration import measures
from kvorum.harness.decisions.prompts import OrderBy
from kvorum.lab.statistics.intervals import wilson
from kvorum.tasks.decisions import ChoiceItem, choice_item
from kvorum.tasks.reports import report

ARRANGED = ("given", "reversed", "shuffled")


class Answers(TypedDict):
    """What one way of asking says of an item: its label in each arrangement, the shares of the options as they stand,
    and the place of the right one."""

    labels: dict[str, str]
    shares: list[float]
    place: int


@dataclass(slots=True)
class Arm:
    """Answers of one way of asking: per arrangement the label of each item, and what was likely of the given one."""

    name: str
    orders: int
    order_by: OrderBy = "views"
    prior: bool = False
    answers: list[Answers] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def arranged(item: ChoiceItem, seed: int) -> dict[str, list[str]]:
    """The options of an item in each arrangement."""
    names = list(item.options)
    mixed = random.Random(f"{seed} shuffled").sample(names, len(names))
    return dict(zip(ARRANGED, (names, names[::-1], mixed), strict=True))


def ask(engine: Engine, arm: Arm, item: ChoiceItem, seed: int) -> Answers:
    """One item in all arrangements."""
    ways = arranged(item, seed)
    questions = [
        Choice(item.question, options=[Option(one, item.options[one]) for one in way]) for way in ways.values()
    ]
    found = engine.decide(item.state, questions, orders=arm.orders, order_by=arm.order_by, prior=arm.prior)
    labels = {name: decision.label for name, decision in zip(ways, found, strict=True)}
    return {"labels": labels, "shares": list(found[0].probabilities), "place": ways["given"].index(item.right)}


def clock(engine: Engine, arms: Sequence[Arm], items: Sequence[ChoiceItem]) -> None:
    """Seconds of one question about one text, the arms in turn."""
    for item in items:
        question = Choice(item.question, options=[Option(one, about) for one, about in item.options.items()])
        for arm in arms:
            started = time.perf_counter()
            engine.decide(item.state, question, orders=arm.orders, order_by=arm.order_by, prior=arm.prior)
            arm.seconds.append(time.perf_counter() - started)


def summary(arm: Arm, right: Sequence[str]) -> dict[str, float | str]:
    """Shares with their intervals, median seconds, calibration error."""
    count = len(right)
    said: dict[str, float | str] = {"arm": arm.name, "items": count, "seconds": round(median(arm.seconds), 3)}
    labels = [one["labels"] for one in arm.answers]
    hits = sum(label == one for said_of, one in zip(labels, right, strict=True) for label in said_of.values())
    said["accuracy"] = share(hits, count * len(ARRANGED))
    for arrangement in ARRANGED[1:]:
        changed = sum(one["given"] != one[arrangement] for one in labels)
        said[f"changed, {arrangement}"] = share(changed, count)
    shares, places = [tuple(one["shares"]) for one in arm.answers], [one["place"] for one in arm.answers]
    said["ece"] = round(measures(shares, places)["ece"], 3)
    return said


def statements(engine: Engine, reports: int) -> dict[str, float | str]:
    """Twenty statements about each report, to be answered with yes or no."""
    hits, seconds = 0, []
    for seed in range(reports):
        told = report(seed)
        asked = [(fact.statement if at % 2 else fact.denial, bool(at % 2)) for at, fact in enumerate(told.chosen(20))]
        started = time.perf_counter()
        found = engine.decide(told.text, [f"Is this true? {words}" for words, _ in asked])
        seconds.append(time.perf_counter() - started)
        hits += sum(decision.value == true for decision, (_, true) in zip(found, asked, strict=True))
    accuracy = share(hits, 20 * reports)
    return {"arm": "20 statements", "items": 20 * reports, "seconds": round(median(seconds), 2), "accuracy": accuracy}


def share(count: int, of: int) -> str:
    """With its 95% interval."""
    found = wilson(count, of)
    return f"{found.value:.3f} ({found.low:.3f}-{found.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--orders", type=int, default=8)
    parser.add_argument("--reports", type=int, default=5)
    parser.add_argument("--timed", type=int, default=10, help="items that are timed")
    parser.add_argument("--arms", default="one,views", help="of one, two, views, encoded, prior, unlisted")
    parser.add_argument("--output", type=Path, default=Path("decisions.jsonl"))
    args = parser.parse_args()
    engine = Engine.load(args.model, kv_tokens=16384)
    known = {
        "one": Arm("one order", 1),
        "two": Arm("2 orders", 2),
        "views": Arm(f"{args.orders} orders, views", args.orders),
        "encoded": Arm(f"{args.orders} orders, encoded", args.orders, "encoded"),
        "prior": Arm("one order, prior", 1, prior=True),
        "unlisted": Arm("not listed", 0),
    }
    arms = [known[name] for name in args.arms.split(",")]
    items = [choice_item(seed) for seed in range(args.items)]
    clock(engine, arms, items[: args.timed + 1])
    for arm in arms:
        del arm.seconds[0]  # which warmed up
    lines = args.output.read_text(encoding="utf-8").splitlines() if args.output.exists() else []
    done = {tuple(line["what"]): line["answers"] for line in map(json.loads, lines)}
    for seed, item in enumerate(items):
        for arm in arms:
            what = (args.model, arm.name, seed)
            if what not in done:
                done[what] = ask(engine, arm, item, seed)
                with args.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"what": what, "answers": done[what]}) + "\n")
            arm.answers.append(done[what])
        if seed % 20 == 19:
            print(json.dumps([summary(arm, [one.right for one in items[: seed + 1]]) for arm in arms]), flush=True)
    found = [summary(arm, [item.right for item in items]) for arm in arms]
    if args.reports:
        found.append(statements(engine, args.reports))
    for line in found:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
