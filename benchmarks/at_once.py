"""Are answers as often right side by side as one row at a time? ask, fields and decide on the same made-up items.

Usage: python benchmarks/at_once.py MODEL [--reports 5] [--places 5] [--caches DTYPE,DTYPE] [--output FILE.jsonl]

Each report (``kvorum.tasks.reports``, seeds 100, 101, ...; some 90 tokens for each place) is asked four questions for
each of its places, has as many fields, and as many statements, half of them true. Everything is greedy, and the text
is in the cache. ``--caches float32,float16,int8``: instead side by side alone, over caches that hold these. What is
done stands in the output, a line each, and is not done again. "Other": how often an answer is another one than in the
first way. Intervals are Wilson's, of 95%.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kvorum import Engine
from kvorum.bench.fanout.jobs import Form, Questions, Statements
from kvorum.bench.fanout.ours import Ours
from kvorum.harness.forms.filled import NotFilled
from kvorum.jsontypes import Json
from kvorum.lab.statistics.intervals import wilson
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.tasks.everyday.kind import says

FIRST_SEED = 100
Way = bool | str
"""One row at a time or not, or side by side over a cache of that dtype."""
Marked = tuple[list[str], list[bool]]
"""What was answered to each item, and whether it is right."""


class Jobs:
    """The three programs on one model; ``alone``: one row at a time."""

    def __init__(self, engine: Engine, folder: Path, places: int) -> None:
        self._engine, self._places, self._kept = engine, places, KeptBlocks(folder)
        self._ours = Ours(engine, folder)

    def ask(self, seed: int, alone: bool) -> Marked:
        """Questions; right is an answer that says what was asked for."""
        job = Questions.make(seed, self._places, 4 * self._places)
        questions = [fact.question for fact in job.facts]
        found = self._engine.ask(job.text, questions, tokens=48, rows=1 if alone else None, kept=self._kept)
        texts = [answer.text or "" for answer in found.answers]
        return texts, [says(text, fact.answer) for text, fact in zip(texts, job.facts, strict=True)]

    def fields(self, seed: int, alone: bool) -> Marked:
        """A form; right is a value that is what the text says, and nothing else."""
        job = Form.make(seed, self._places, 4 * self._places)
        try:
            value = self._engine.fields(job.text, dict(job.schema), rows=1 if alone else None, kept=self._kept).value
        except NotFilled as error:
            value = error.form.value  # what is missing is not right
        given = value if isinstance(value, Mapping) else {}
        texts = [str(given.get(fact.key)).strip() for fact in job.facts]
        return texts, [text == fact.answer for text, fact in zip(texts, job.facts, strict=True)]

    def decide(self, seed: int, alone: bool) -> Marked:
        """Statements that are true of the text or not."""
        job = Statements.make(seed, self._places, 4 * self._places)
        texts = list(self._ours.decide(job, self._ours.state(job), together=not alone).texts)
        return texts, [(text == "yes") == true for text, true in zip(texts, job.true, strict=True)]


def share(marks: Sequence[bool]) -> str:
    """How many are right, with the interval."""
    found = wilson(sum(marks), len(marks))
    return f"{sum(marks)} of {len(marks)} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--reports", type=int, default=5)
    parser.add_argument("--places", type=int, default=5)
    parser.add_argument("--caches", default="")
    parser.add_argument("--output", type=Path, default=Path("at-once.jsonl"))
    args = parser.parse_args()
    lines = args.output.read_text(encoding="utf-8").splitlines() if args.output.exists() else []
    done = {tuple(line["what"]): line for line in map(json.loads, lines)}
    ways: list[Way] = list(args.caches.split(",")) if args.caches else [False, True]
    seeds = range(FIRST_SEED, FIRST_SEED + args.reports)
    with args.output.open("a", encoding="utf-8") as file:
        for dtype in args.caches.split(","):
            ours: list[Way] = [dtype] if dtype else ways
            missing = [
                (job, seed, way)
                for job in ("ask", "fields", "decide")
                for seed in seeds
                for way in ours
                if (args.model, args.places, job, seed, way) not in done
            ]
            if not missing:
                continue
            with tempfile.TemporaryDirectory() as folder:
                engine = Engine.load(args.model, kv_tokens=16384, kv_dtype=dtype or "auto")
                jobs = Jobs(engine, Path(folder), args.places)
                for job, seed, way in missing:
                    what = (args.model, args.places, job, seed, way)
                    done[what] = {"what": what, **carried_out(getattr(jobs, job), seed, way)}
                    file.write(json.dumps(done[what]) + "\n")
                    file.flush()
    names = ways if args.caches else ["at once", "one row at a time"]
    print(f"| program | {' | '.join(map(str, names))} | other | seconds |")
    print("|---" * (len(ways) + 3) + "|")
    for job in ("ask", "fields", "decide"):
        found = [[done[args.model, args.places, job, seed, way] for seed in seeds] for way in ways]
        answers = [[one for line in some for one in line["said"]] for some in found]
        other = [sum(one != first for one, first in zip(some, answers[0], strict=True)) for some in answers[1:]]
        cells = [share([one for line in some for one in line["right"]]) for some in found]
        times = [f"{sum(line['seconds'] for line in some):.0f}" for some in found]
        print(f"| {job} | {' | '.join(cells)} | {', '.join(map(str, other))} | {', '.join(times)} |")


def carried_out(job: Callable[[int, bool], Marked], seed: int, way: Way) -> dict[str, Json]:
    """What was said, what of it is right, and the seconds, the text read before."""
    alone = way is True
    if job.__name__ != "decide" and not alone:
        job(seed, alone)  # its text is read and kept
    started = time.perf_counter()
    said, right = job(seed, alone)
    return {"said": [*said], "right": [*right], "seconds": round(time.perf_counter() - started, 2)}


if __name__ == "__main__":
    main()
