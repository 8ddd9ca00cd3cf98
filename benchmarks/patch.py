"""How much of a moved block must be read again until answers and logits are those of a full prefill.

Usage: python benchmarks/patch.py MODEL [--items 200] [--places 2] [--tokens 12] [--output FILE.json]

Each item is a report that was read behind one other report and now stands behind another; a question asks for one of
its facts. Arms: nothing is read again; the first 8 or 32 tokens; the 5, 15 or 30 % of tokens whose values deviate most
(told by a full read, so the choice is the best that such a rule can make, and its time is not counted); all. Of each
arm: the divergence of the next token's distribution from the full prefill's (KL, nats), whether both would write the
same token, whether the answer stands in what is written greedily, and the seconds of reading again, with 95% intervals.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kvorum import Block, Engine, Row, View
from kvorum.lab.statistics.intervals import mean, wilson
from kvorum.tasks.reports import Fact, report

Choice = Callable[[Tensor], list[int]]


def first(count: int) -> Choice:
    return lambda deviation: list(range(min(count, len(deviation))))


def most(share: float) -> Choice:
    return lambda deviation: deviation.topk(round(share * len(deviation))).indices.tolist()


ARMS: dict[str, Choice] = {
    "none": first(0),
    "first 8": first(8),
    "first 32": first(32),
    "top 5 %": most(0.05),
    "top 15 %": most(0.15),
    "top 30 %": most(0.30),
    "all": most(1.0),
}


@dataclass(slots=True)
class Seen:
    """Of one arm, item by item."""

    share: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        kl, same, right = (
            mean(self.kl),
            wilson(sum(self.same), len(self.same)),
            wilson(sum(self.right), len(self.right)),
        )
        return {
            "share": sum(self.share) / len(self.share),
            "kl": (kl.value, kl.low, kl.high),
            "same": (same.value, same.low, same.high),
            "right": (right.value, right.low, right.high),
            "seconds": sum(self.seconds) / len(self.seconds),
        }


def ids(engine: Engine, text: str) -> list[int]:
    return list(engine.tokenizer(text, add_special_tokens=False).input_ids)


def item(engine: Engine, number: int, places: int, tokens: int, seen: dict[str, Seen]) -> None:
    """One item, all arms: their questions share ticks."""
    told = report(3 * number, places)
    before, others = engine.block("before"), engine.block("others")
    text = engine.block("report")
    engine.forward([Row(View(before), ids=ids(engine, report(3 * number + 1, places).text + "\n\n"))])
    engine.forward([Row(View(others), ids=ids(engine, report(3 * number + 2, places).text + "\n\n"))])
    engine.forward([Row(View(before, text), ids=ids(engine, told.text))])
    fact = told.facts[number % len(told.facts)]
    deviation = engine.deviation(text, View(others))
    views = []
    for name, choose in ARMS.items():
        chosen = choose(deviation)
        start = time.perf_counter()
        patched = engine.patch(text, View(others), chosen)
        seen[name].seconds.append(time.perf_counter() - start)
        seen[name].share.append(len(chosen) / len(text))
        views.append(View(others, patched, engine.block(name)))
    written = answers(engine, views, fact, tokens, list(seen.values()))
    for one, words in zip(seen.values(), written, strict=True):
        one.right.append(fact.answer.lower() in words.lower())


def answers(engine: Engine, views: Sequence[View], fact: Fact, tokens: int, seen: Sequence[Seen]) -> list[str]:
    """What each view answers greedily; ``seen`` is told how far its first token is from the last view's."""
    question = ids(engine, f"\n\nQuestion: {fact.question}\nAnswer:")
    logits = engine.forward([Row(view, ids=question) for view in views]).logits
    chances = logits.double().log_softmax(-1)
    for one, line in zip(seen, chances, strict=True):
        one.kl.append(float((chances[-1].exp() * (chances[-1] - line)).sum()))
        one.same.append(int(line.argmax()) == int(chances[-1].argmax()))
    for _ in range(tokens):
        picked = logits.argmax(-1).tolist()
        logits = engine.forward([Row(view, ids=[one]) for view, one in zip(views, picked, strict=True)]).logits
    own: list[Block] = [view.blocks[-1] for view in views]
    return [engine.tokenizer.decode(block.ids[len(question) :]).split("\n")[0] for block in own]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--places", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--output")
    given = parser.parse_args()
    engine = Engine.load(given.model, kv_tokens=8192)
    seen = {name: Seen() for name in ARMS}
    with torch.inference_mode():
        for number in range(given.items):
            item(engine, number, given.places, given.tokens, seen)
    found = {name: one.summary() for name, one in seen.items()}
    print(f"{given.model}, {given.items} items\n")
    print("| read again | share | KL to a full prefill | same next token | answer right | seconds |")
    print("|---|---|---|---|---|---|")
    for name, one in found.items():
        kl, same, right = ("{:.3f} ({:.3f} to {:.3f})".format(*one[key]) for key in ("kl", "same", "right"))
        print(f"| {name} | {one['share']:.0%} | {kl} | {same} | {right} | {one['seconds']:.3f} |")
    if given.output:
        with open(given.output, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
