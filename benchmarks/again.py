"""What it costs to solve the same kind of problem again: forty related items, with a memory that grows and without.

Usage: python benchmarks/again.py [MODEL] [--output FILE] [--items 40] [--sequences 1]

Each item asks what a made-up word does to a number, and a handbook of ten rules says it. Three ways:

    handbook   the handbook stands in every prompt, and is read every time
    kept       the same as a block, encoded once
    growing    what is remembered about the question stands in the prompt; where nothing is, the handbook is read, the
               rule that is needed is quoted from it, and remembered for the next time

A quotation that is wrong is remembered too. Tokens are those that went through the model: encoded, and written.
Resumable: a line for each item in FILE; the same command goes on, and prints the table over what all ways have had.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvorum import Budget, Engine, Run, program
from kvorum.harness.memory.blocks import memory_blocks
from kvorum.harness.memory.memory import Memory
from kvorum.harness.memory.policy import policy
from kvorum.harness.pieces import Piece, write
from kvorum.harness.shared_text import quoted_ids, turn_ids
from kvorum.harness.text_blocks import TextBlocks
from kvorum.jsontypes import Json
from kvorum.kv import Block, View
from kvorum.sampling.grammar import Grammar
from kvorum.sampling.sampling import Sampling
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.store.memory.store import MemoryStore
from kvorum.tasks.ladder.kinds import SKILLS, operator

WAYS = ("handbook", "kept", "growing")
HANDBOOK = "Handbook.\n" + "".join(f"{skill.body}\n" for skill in SKILLS.values())
FORM = 'Answer in this form: {"answer": NUMBER}'
QUOTE = "Which sentence of the handbook is needed for this? Quote it. "


class Solver:
    """One sequence in one way. ``memory``: what has grown."""

    def __init__(self, engine: Engine, way: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.engine, self.way = engine, way
        self.memory = Memory(MemoryStore(folder / "memory.sqlite"), namespace="again", policy=policy("program"))
        self.kept = KeptBlocks(folder / "kept", 1_000_000_000)
        self.encoded = 0

    def solve(self, question: str, schema: Mapping[str, Json]) -> dict[str, object]:
        """The answer to one item, and what it took."""
        self.encoded, began = 0, time.perf_counter()
        found: dict[str, object] = {}

        @program("again", "one item of a sequence")
        async def again(run: Run) -> str | None:
            texts = await TextBlocks.begin(run)
            before = await self.before(run, texts, question, found)
            answer = await self.write(run, before, f"{question} {FORM}", Grammar.json(schema), 16)
            found["encoded"] = self.encoded + texts.encoded
            return answer

        kept = None if self.way == "handbook" else self.kept
        result = self.engine.run(again, question, kept=kept, budget=Budget())
        seconds = time.perf_counter() - began
        return {"answer": result.answer, "written": result.ledger.decoded, "seconds": round(seconds, 2), **found}

    async def before(self, run: Run, texts: TextBlocks, question: str, found: dict[str, object]) -> Sequence[Block]:
        """What stands before the question."""
        if self.way != "growing":
            return [texts.opening, await texts.block(HANDBOOK, "handbook")]
        known = self.memory.recall(question.replace("the number", ""), limit=1)
        found["recalled"] = bool(known.entries)
        if not known.entries:
            handbook = await texts.block(HANDBOOK, "handbook")
            sentences = Grammar.choice([skill.body for skill in SKILLS.values()])
            rule = await self.write(run, [texts.opening, handbook], f"{QUOTE}{question}", sentences, 40)
            self.memory.remember(rule)
            found["quoted"] = rule
            known = self.memory.recall(rule, limit=1)
        return [texts.opening, *await memory_blocks(texts, self.memory, known)]

    async def write(self, run: Run, before: Sequence[Block], words: str, grammar: Grammar, tokens: int) -> str:
        """What one worker writes behind blocks and words."""
        worker = run.add_worker(f"worker {len(run.workers)}")
        worker.view = View(*before, run.block("own"))
        ids = [*quoted_ids(run, f"\n{words}"), *turn_ids(run)[1]]
        self.encoded += len(ids)
        worker.feed(ids)
        piece = Piece(worker, Sampling(grammar=grammar), tokens=tokens)
        await write(run, [piece])
        return piece.text


def report(lines: Sequence[dict[str, object]]) -> str:
    """A row for each way, over the items that all of them have had."""
    had = [{(line["sequence"], line["at"]) for line in lines if line["way"] == way} for way in WAYS]
    lines = [line for line in lines if (line["sequence"], line["at"]) in set.intersection(*had)]
    rows = ["| way | items | solved | tokens encoded | written | tokens per solved item | first ten | last ten |"]
    rows.append("|" + "---|" * 8)
    for way in WAYS:
        own = [line for line in lines if line["way"] == way]
        if own:
            encoded, written = (sum(int(str(line[name])) for line in own) for name in ("encoded", "written"))
            solved = sum(bool(line["right"]) for line in own)
            cells = [way, len(own), solved, encoded, written, per_solved(own)]
            early = [line for line in own if int(str(line["at"])) < 10]
            late = [line for line in own if int(str(line["at"])) >= 30]
            rows.append(f"| {' | '.join(map(str, [*cells, per_solved(early), per_solved(late)]))} |")
    return "\n".join(rows)


def per_solved(lines: Sequence[dict[str, object]]) -> str:
    """Tokens, encoded and written, for each item that was solved."""
    solved = sum(bool(line["right"]) for line in lines)
    tokens = sum(int(str(line["encoded"])) + int(str(line["written"])) for line in lines)
    return f"{tokens / solved:.0f}" if solved else ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="qwen2.5-coder-1.5b")
    parser.add_argument("--output", type=Path, default=Path("again.jsonl"))
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--sequences", type=int, default=1)
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.output.read_text().splitlines()] if args.output.exists() else []
    done = {(line["sequence"], line["way"], line["at"]) for line in lines}
    engine = Engine.load(args.model, kv_tokens=8192)
    for sequence in range(args.sequences):
        solvers = {way: Solver(engine, way, args.output.with_suffix("") / f"{sequence}-{way}") for way in WAYS}
        for line in lines:  # the memory is what was quoted, wherever it was
            if line["sequence"] == sequence and line.get("quoted"):
                solvers[line["way"]].memory.remember(line["quoted"])
        for at in range(args.items):
            made = operator(random.Random(f"again/{sequence}/{at}"))
            for way, solver in solvers.items():
                if (sequence, way, at) in done:
                    continue
                took = solver.solve(made.question, made.message)
                right = made.score(str(took["answer"])).solved
                lines.append({"sequence": sequence, "way": way, "at": at, "right": right, "of": made.needed, **took})
                with args.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    print(report(lines))


if __name__ == "__main__":
    main()
