"""What still speaks of an entry that was replaced: a talk that has read it, behind the entry that took its place.

Usage: python benchmarks/swapped.py MODEL [--items 16] [--output FILE.jsonl]

Each item has an entry, "The code of Ann's locker is 4711.", a talk behind it that does not say the code, and then a new
entry in its place. The code is asked for, greedily, over three views:

    old         nothing was swapped: what the model says of the old entry
    hidden      the new entry stands before the talk, which has read the old one
    forgotten   the same, and the talk is encoded again

One talk is about something else, the other about the locker. What is done stands in the output, a line each, and is not
done again. KL: of the first token of the answer, against forgotten, in nats.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from statistics import mean

import torch

from kvorum import Budget, Engine, Run, View
from kvorum.bench.talk.script import NAMES
from kvorum.engine.row import Cost, Row
from kvorum.harness.memory.blocks import HEADING
from kvorum.harness.shared_text import encode, quoted_ids, turn_ids
from kvorum.harness.text_blocks import TextBlocks, encode_again
from kvorum.lab.statistics.intervals import wilson
from kvorum.runs.program import Program

TOKENS = 8
VIEWS = ("old", "hidden", "forgotten")
TALKS = {
    "of something else": "Since then we have planned the garden: the beans go to the wall, the roses stay where they "
    "are, and the old pump is to be mended before the frost comes.\n",
    "of the locker": "Since then {name} has opened the locker twice with this code, was glad that it works, and has "
    "asked that nobody else be told of it before the summer.\n",
}


async def answered(run: Run, seen: View, words: str) -> tuple[str, torch.Tensor]:
    """A greedy answer to a question behind what is seen, and the logits of its first token."""
    view = View(*seen.fork(len(seen)).items, run.block("own"))
    ids = [*quoted_ids(run, words), *turn_ids(run)[1]]
    await encode(run, view, ids[:-1])
    said: list[int] = []
    given, first = ids[-1:], torch.empty(0)
    while len(said) < TOKENS and given[0] not in run.ends:
        logits = (await run.forward([Row(view, ids=given)], [Cost(len(said) and 1)])).output.logits[0].double().cpu()
        first = first if said else logits
        given = [int(logits.argmax())]
        said += given
    return run.read(said), first.log_softmax(-1)


def measure(engine: Engine, seed: int, talk: str) -> dict[str, dict[str, object]]:
    """Of every view: whether the new code is said, or the old one, and how far the answer begins from forgotten."""
    draws = random.Random(seed)
    name, (old, new) = draws.choice(NAMES), [str(code) for code in draws.sample(range(1000, 9999), 2)]
    found: dict[str, tuple[str, torch.Tensor]] = {}

    async def function(run: Run) -> str | None:
        run.dismiss_workers()
        texts = await TextBlocks.begin(run)
        entries = [
            await texts.block(f"{HEADING}- The code of {name}'s locker is {code}.\n", "entry") for code in (old, new)
        ]
        block = run.block("talk")
        words = TALKS[talk].format(name=name)
        await encode(run, View(texts.opening, entries[0], block), quoted_ids(run, words))
        before = View(texts.opening, entries[0], block.seal())
        hidden = before.swap(*entries)
        again, _ = await encode_again(run, hidden, len(texts.opening) + len(entries[1]), "again")
        question = f"What is the code of {name}'s locker? Answer with the number alone."
        for view, seen in zip(VIEWS, (before, hidden, again), strict=True):
            found[view] = await answered(run, seen, question)
        return "done"

    engine.run(Program("swapped", "an entry in the place of another", function), "go", budget=Budget())
    wanted = found["forgotten"][1]
    return {
        view: {
            "new": new in text,
            "old": old in text,
            "kl": float((wanted.exp() * (wanted - first)).sum()),
        }
        for view, (text, first) in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path("swapped.jsonl"))
    args = parser.parse_args()
    lines = args.output.read_text(encoding="utf-8").splitlines() if args.output.exists() else []
    done = {tuple(line["what"]): line["views"] for line in map(json.loads, lines)}
    engine = Engine.load(args.model, kv_tokens=4096)
    for seed in range(args.items):
        for talk in TALKS:
            if (args.model, talk, seed) not in done:
                views = done[args.model, talk, seed] = measure(engine, seed, talk)
                with args.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"what": [args.model, talk, seed], "views": views}) + "\n")
    print("| the talk is | the old entry is | says the new code | says the old one | KL |")
    print("|---|---|---|---|---|")
    for talk in TALKS:
        for view in VIEWS:
            rows = [done[args.model, talk, seed][view] for seed in range(args.items)]
            shares = []
            for what in ("new", "old"):
                count = sum(row[what] for row in rows)
                share = wilson(count, len(rows))
                shares.append(f"{count} of {len(rows)} [{share.low:.2f}, {share.high:.2f}]")
            print(f"| {talk} | {view} | {shares[0]} | {shares[1]} | {mean(row['kl'] for row in rows):.3f} |")


if __name__ == "__main__":
    main()
