"""What a tick costs: by workers and context, against transformers' generate, and with many finished steps.

`make bench`, or `python benchmarks/ticks.py [--model NAME] [--exact] [--json FILE]`. Medians of interleaved repeats
with minimum and maximum; machine, versions and date are printed with them. Does not cover llama.cpp, vLLM, GPUs, or
prefill of long prompts beside decoding.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from kvorum import Block, Engine, Row, Span, View

REPEATS = 9
Figures = dict[str, float]


def figures(seconds: list[float]) -> Figures:
    """Milliseconds: median, minimum, maximum."""
    return {"median": statistics.median(seconds) * 1e3, "min": min(seconds) * 1e3, "max": max(seconds) * 1e3}


def interleaved(jobs: dict[str, Callable[[], None]], repeats: int = REPEATS) -> dict[str, Figures]:
    """Time each job once per round, so that a slow spell of the machine meets them all."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(repeats):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - started)
    return {name: figures(seconds) for name, seconds in times.items()}


def prompt_of(engine: Engine, tokens: int) -> Block:
    block = engine.block(f"prompt of {tokens}")
    ids = torch.randint(5, engine.shape.vocab // 2, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    engine.forward([Row(View(block), ids=ids)])
    return block


def team(engine: Engine, prompt: Block, workers: int) -> Callable[[], None]:
    """A tick of a Hogwild!-shaped team: everyone sees the prompt, the others and itself."""
    own = [engine.block() for _ in range(workers)]
    views = [View(prompt, *(block for block in own if block is not mine), mine) for mine in own]
    return lambda: void(engine.forward([Row(view, ids=[7]) for view in views]))


def void(_: object) -> None:
    return None


def steps(engine: Engine, prompt: Block, count: int, workers: int = 4) -> Callable[[], None]:
    """A tick of four workers behind the same tokens in ``count`` closed spans."""
    length = len(prompt) // count
    spans = [Span(prompt, at * length, (at + 1) * length) for at in range(count)]
    blocks = []
    for span in spans:
        block = engine.block()
        engine.compact([span], block)
        blocks.append(block.seal())
    views = [View(*blocks, engine.block()) for _ in range(workers)]
    return lambda: void(engine.forward([Row(view, ids=[7]) for view in views]))


def generate(engine: Engine, prompt: Block, rows: int, tokens: int = 8) -> Callable[[], None]:
    """transformers' own decoding of ``rows`` independent rows, per token; its prefill is timed apart and taken off."""
    ids = torch.tensor([prompt.ids] * rows)
    model = engine.model

    @torch.no_grad()
    def run() -> None:
        cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
        last = torch.full((rows, 1), 7)
        started = time.perf_counter()
        for _ in range(tokens):
            cache = model(last, past_key_values=cache, use_cache=True).past_key_values
        run.seconds.append((time.perf_counter() - started) / tokens)  # type: ignore[attr-defined]

    run.seconds = []  # type: ignore[attr-defined]
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--exact", action="store_true", help="float32 weights, and transformers beside it")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    console = Console()
    engine = Engine.load(args.model, quantize=None if args.exact else "auto", kv_tokens=32768)
    about = {
        "model": engine.about(),
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "date": date.today().isoformat(),
    }
    console.print(about)
    found: dict[str, dict[str, Figures]] = {}
    for context in (256, 1024, 4096):
        prompt = prompt_of(engine, context)
        jobs = {str(workers): team(engine, prompt, workers) for workers in (1, 2, 4, 8, 16)}
        found[f"tick at {context} shared tokens, by workers"] = interleaved(jobs)
        if args.exact and context == 256:
            peers = {str(rows): generate(engine, prompt, rows) for rows in (1, 8)}
            interleaved(peers, 3)
            found["transformers, a token of each row, 256 tokens each, by rows"] = {
                rows: figures(job.seconds[1:])  # type: ignore[attr-defined]
                for rows, job in peers.items()
            }
    prompt = prompt_of(engine, 2048)
    many = {f"{count} spans": steps(engine, prompt, count) for count in (1, 16, 64, 256)}
    found["tick of 4 workers behind 2048 tokens in so many finished steps"] = interleaved(many)
    for title, rows in found.items():
        table = Table("", "median ms", "min", "max", "tokens/s in total", title=title)
        for name, line in rows.items():
            total = f"{int(name) * 1e3 / line['median']:.0f}" if name.isdigit() else ""
            table.add_row(name, *(f"{line[key]:.1f}" for key in ("median", "min", "max")), total)
        console.print(table)
    if args.json:
        Path(args.json).write_text(json.dumps({"about": about, "milliseconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
