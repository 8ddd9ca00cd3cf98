"""The same memory and skills four ways: in the prompt, as blocks encoded alone, with their first tokens encoded again,
and as blocks encoded in context.

Usage: python benchmarks/delivery.py MODEL [--items 60] [--first 4] [--output FILE.jsonl]

Each item (a seed) has twelve entries of a memory, two skills of some hundred tokens and a question, of every second
item to an entry, of the others to a skill. Everything is greedy. What is done stands in the output, a line each, and is
not done again. KL: of the first token of the answer, against the prompt, in nats.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

import torch

from kvorum import Budget, Engine, Run, View
from kvorum.bench.talk.arms import HEADING, TOKENS
from kvorum.bench.talk.script import NAMES, skill_body
from kvorum.engine.row import Cost, Row
from kvorum.harness.patches import patch
from kvorum.harness.shared_text import encode, load_or_encode, quoted_ids, turn_ids
from kvorum.harness.text_blocks import TextBlocks
from kvorum.kv import Block
from kvorum.lab.statistics.intervals import wilson
from kvorum.runs.program import Program

SKILLS = ("tides", "invoices")
WORDS = (
    "amber",
    "birch",
    "cobalt",
    "dune",
    "ember",
    "fjord",
    "granite",
    "harbor",
    "indigo",
    "jasper",
    "lagoon",
    "maple",
)


@dataclass(frozen=True, slots=True)
class Item:
    """Texts of a memory and of skills, and a question of one of them."""

    texts: Sequence[str]
    question: str
    right: str


def make(seed: int) -> Item:
    """The item of a seed."""
    draws = random.Random(seed)
    codes = {name: str(draws.randrange(1000, 9999)) for name in NAMES}
    marks = dict(zip(SKILLS, draws.sample(WORDS, len(SKILLS)), strict=True))
    memory = [f"- The code of {name}'s locker is {code}.\n" for name, code in codes.items()]
    ends = {name: f"6. When {name} are done, write the word {word} below.\n</skill>" for name, word in marks.items()}
    skills = [skill_body(name).replace("</skill>", end) for name, end in ends.items()]
    asked = draws.choice(NAMES) if seed % 2 else draws.choice(SKILLS)
    if asked in codes:
        question, right = f"What is the code of {asked}'s locker? Answer with the number alone.", codes[asked]
    else:
        question, right = (
            f"Which word is written below when {asked} are done? Answer with the word alone.",
            marks[asked],
        )
    return Item([HEADING, *memory, *skills], question, right)


@dataclass(slots=True)
class Told:
    """What a way of delivery came to for one item. ``logits`` are of the answer's first token."""

    logits: torch.Tensor
    answer: str
    seconds: float
    encoded: int


async def answered(run: Run, view: View, ids: Sequence[int], started: float, encoded: int) -> Told:
    """A greedy answer behind ``ids``; ``encoded`` tokens went through the model before."""
    await encode(run, view, ids[:-1])
    said: list[int] = []
    given = list(ids[-1:])
    first, seconds = torch.empty(0), 0.0
    while len(said) < TOKENS:
        logits = (await run.forward([Row(view, ids=given)], [Cost(len(said) and 1)])).output.logits[0].double().cpu()
        if not said:
            first, seconds = logits, time.perf_counter() - started
        given = [int(logits.argmax())]
        if given[0] in run.ends:
            break
        said += given
    return Told(first, run.read(said), seconds, encoded + len(ids))


async def ways(run: Run, item: Item, first: int) -> dict[str, Told]:
    """Every way of delivery. Blocks are there before the clock starts, as those of a conversation are."""
    run.dismiss_workers()
    texts = await TextBlocks.begin(run)
    alone = [await texts.block(words, "text") for words in item.texts]
    context: list[Block] = []
    for words in item.texts:
        block, _ = await load_or_encode(run, [texts.opening, *context], quoted_ids(run, words), "in context")
        context.append(block)
    question = [*quoted_ids(run, item.question), *turn_ids(run)[1]]
    found = {}
    now = time.perf_counter()
    all_of_it = [token for block in alone for token in block.ids]
    found["in the prompt"] = await answered(run, View(texts.opening, run.block("own")), [*all_of_it, *question], now, 0)
    now = time.perf_counter()
    found["blocks, each encoded alone"] = await answered(
        run, View(texts.opening, *alone, run.block("own")), question, now, 0
    )
    now = time.perf_counter()
    placed: list[Block] = []
    again = 0
    for block in alone:
        chosen = range(min(first, len(block)))
        placed.append(await patch(run, block, View(texts.opening, *placed), chosen))
        again += len(chosen)
    name = f"blocks, the first {first} tokens of each again"
    found[name] = await answered(run, View(texts.opening, *placed, run.block("own")), question, now, again)
    now = time.perf_counter()
    view = View(texts.opening, *context, run.block("own"))
    found["blocks, encoded in context"] = await answered(run, view, question, now, 0)
    return found


def measure(engine: Engine, item: Item, first: int) -> dict[str, dict[str, object]]:
    """Of every way: whether the answer is right, how far it begins from the prompt's, seconds, tokens encoded."""
    found: dict[str, Told] = {}

    async def function(run: Run) -> str | None:
        found.update(await ways(run, item, first))
        return "done"

    engine.run(Program("delivery", "texts delivered in several ways", function), "go", budget=Budget())
    wanted = found["in the prompt"].logits.log_softmax(-1)
    return {
        name: {
            "right": item.right in told.answer.lower(),
            "kl": float((wanted.exp() * (wanted - told.logits.log_softmax(-1))).sum()),
            "same": int(told.logits.argmax()) == int(wanted.argmax()),
            "seconds": told.seconds,
            "encoded": told.encoded,
        }
        for name, told in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--first", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("delivery.jsonl"))
    args = parser.parse_args()
    lines = args.output.read_text(encoding="utf-8").splitlines() if args.output.exists() else []
    done = {tuple(line["what"]): line["ways"] for line in map(json.loads, lines)}
    engine = Engine.load(args.model, kv_tokens=16384)
    whats = [(args.model, args.first, seed) for seed in range(args.items)]
    for what in whats:
        if what not in done:
            done[what] = measure(engine, make(what[2]), args.first)
            with args.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"what": what, "ways": done[what]}) + "\n")
    print("| delivered | tokens encoded | seconds to the first | memory right | skill right | KL | same first token |")
    print("|---|---|---|---|---|---|---|")
    for way in done[whats[0]]:
        rows = [done[what][way] for what in whats]
        halves = []
        for half in (1, 0):
            marks = [row["right"] for row, what in zip(rows, whats, strict=True) if what[2] % 2 == half]
            share = wilson(sum(marks), len(marks))
            halves.append(f"{sum(marks)} of {len(marks)} [{share.low:.2f}, {share.high:.2f}]")
        kl = [row["kl"] for row in rows]
        near = f"{mean(kl):.3f} ± {1.96 * stdev(kl) / len(kl) ** 0.5:.3f}"
        print(
            f"| {way} | {mean(row['encoded'] for row in rows):.0f} | {median(row['seconds'] for row in rows):.2f} "
            f"| {halves[0]} | {halves[1]} | {near} | {mean(row['same'] for row in rows):.2f} |"
        )


if __name__ == "__main__":
    main()
