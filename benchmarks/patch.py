"""How much of a moved block must be read again until answers and logits are those of a full prefill.

Usage: python benchmarks/patch.py MODEL [--items 200] [--places 2] [--tokens 12] [--seconds N] --output FILE.jsonl

Each item is a report that was read behind one other report and now stands behind another; a question asks for one of
its facts. Arms: nothing is read again; the first 8 or 32 tokens; the 5, 15 or 30 % of tokens whose values deviate most
(told by a full read, so the choice is the best that such a rule can make, and its time is not counted); all. Of each
arm: the divergence of the next token's distribution from the full prefill's (KL, nats), whether both would write the
same token, whether the answer stands in what is written greedily, with 95% intervals, and the time of reading
again beside that of reading all, measured in turns.
Items are kept in FILE as they come, and the same command goes on behind them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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
    """Of one arm of one item: the share of the block that was read again, the divergence, whether the next token is the
    same and the answer right, and the seconds of reading again."""

    share: float
    seconds: float
    kl: float = 0.0
    same: bool = False
    right: bool = False


def ids(engine: Engine, text: str) -> list[int]:
    return list(engine.tokenizer(text, add_special_tokens=False).input_ids)


def item(engine: Engine, number: int, places: int, tokens: int) -> dict[str, Seen]:
    """One item, all arms: their questions share ticks, and which arm is timed first goes round from item to item."""
    told = report(3 * number, places)
    before, others = engine.block("before"), engine.block("others")
    text = engine.block("report")
    engine.forward([Row(View(before), ids=ids(engine, report(3 * number + 1, places).text + "\n\n"))])
    engine.forward([Row(View(others), ids=ids(engine, report(3 * number + 2, places).text + "\n\n"))])
    engine.forward([Row(View(before, text), ids=ids(engine, told.text))])
    fact = told.facts[number % len(told.facts)]
    deviation = engine.deviation(text, View(others))
    seen: dict[str, Seen] = {}
    patched: dict[str, Block] = {}
    names = list(ARMS)
    turn = number % len(names)
    for name in names[turn:] + names[:turn]:
        chosen = ARMS[name](deviation)
        start = time.perf_counter()
        patched[name] = engine.patch(text, View(others), chosen)
        seen[name] = Seen(len(chosen) / len(text), time.perf_counter() - start)
    views = [View(others, patched[name], engine.block(name)) for name in names]
    written = answers(engine, views, fact, tokens, [seen[name] for name in names])
    for name, words in zip(names, written, strict=True):
        seen[name].right = fact.answer.lower() in words.lower()
    return {name: seen[name] for name in names}


def answers(engine: Engine, views: Sequence[View], fact: Fact, tokens: int, seen: Sequence[Seen]) -> list[str]:
    """What each view answers greedily; ``seen`` is told how far its first token is from the last view's."""
    question = ids(engine, f"\n\nQuestion: {fact.question}\nAnswer:")
    logits = engine.forward([Row(view, ids=question) for view in views]).logits
    chances = logits.double().log_softmax(-1)
    for one, line in zip(seen, chances, strict=True):
        one.kl = float((chances[-1].exp() * (chances[-1] - line)).sum())
        one.same = int(line.argmax()) == int(chances[-1].argmax())
    for _ in range(tokens):
        picked = logits.argmax(-1).tolist()
        logits = engine.forward([Row(view, ids=[one]) for view, one in zip(views, picked, strict=True)]).logits
    own: list[Block] = [view.blocks[-1] for view in views]
    return [engine.tokenizer.decode(block.ids[len(question) :]).split("\n")[0] for block in own]


def table(records: Sequence[dict[str, dict[str, float]]]) -> str:
    """The curve as Markdown, with 95% intervals; seconds as a share of those of reading all again, the median of the
    items' ratios."""
    lines = ["| read again | share | KL to a full prefill | same next token | answer right | time of a full read |"]
    lines.append("|---|---|---|---|---|---|")
    for name in ARMS:
        found = [record[name] for record in records]
        kl = mean([one["kl"] for one in found])
        same, right = (wilson(int(sum(one[key] for one in found)), len(found)) for key in ("same", "right"))
        shown = (f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in (kl, same, right))
        share = sum(one["share"] for one in found) / len(found)
        ratio = statistics.median(record[name]["seconds"] / record["all"]["seconds"] for record in records)
        lines.append(f"| {name} | {share:.0%} | {' | '.join(shown)} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--places", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=math.inf)
    given = parser.parse_args()
    done = given.output.read_text(encoding="utf-8").splitlines() if given.output.exists() else []
    begun = time.monotonic()
    if len(done) < given.items:
        engine = Engine.load(given.model, kv_tokens=8192)
        with torch.inference_mode(), given.output.open("a", encoding="utf-8") as file:
            for number in range(len(done), given.items):
                if time.monotonic() - begun > given.seconds:
                    break
                found = item(engine, number, given.places, given.tokens)
                done.append(json.dumps({name: asdict(one) for name, one in found.items()}))
                print(done[-1], file=file, flush=True)
    print(f"{given.model}, {len(done)} items\n\n{table([json.loads(line) for line in done])}")


if __name__ == "__main__":
    main()
