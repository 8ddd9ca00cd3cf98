"""A tick on a GPU beside the bandwidth of its memory and beside transformers, on random weights of a known shape.

W workers share one context, see each other and decode one token each; transformers decodes a batch of W rows, each with
its own copy of the context. The limit is the time to read the weights and the cache once at the measured bandwidth. No
token is picked and no text is made, and nothing is said of other engines.

    python benchmarks/gpu.py --shape qwen3-8b -o qwen3-8b.json
    python benchmarks/gpu.py --shape qwq-32b -o qwq-32b.json

``--shape tiny --device cpu`` runs the same code anywhere; its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from kvorum import Engine, Row, View
from kvorum.backends.local.backend import LocalBackend
from kvorum.bench.engines.kvorum import weight_bytes
from kvorum.bench.result import Timing
from kvorum.models.runners.graphs import GraphRunner
from kvorum.models.transformers_cache import cache_argument

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-8b": (
        "qwen3",
        {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
        },
    ),
    "qwq-32b": (
        "qwen2",
        {
            "hidden_size": 5120,
            "intermediate_size": 27648,
            "num_hidden_layers": 64,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "vocab_size": 152064,
            "max_position_embeddings": 40960,
        },
    ),
    "tiny": (
        "qwen3",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 64,
            "max_position_embeddings": 4096,
        },
    ),
}


def build(shape: str, device: torch.device) -> Any:
    """A model of random weights, bfloat16 on a GPU, made where it will stay."""
    kind, options = SHAPES[shape]
    config = AutoConfig.for_model(kind, **options, tie_word_embeddings=False)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return model.to(device).eval().requires_grad_(False)


def finish(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bandwidth(device: torch.device, repeats: int = 10) -> float:
    """Bytes per second: the best of ``repeats`` sums over a buffer far beyond the caches, and of as many copies."""
    numbers = (2 << 30 if device.type == "cuda" else 128 << 20) // 4
    source, target = (torch.ones(numbers, dtype=torch.int32, device=device) for _ in range(2))
    best = 0.0
    moves: list[tuple[int, Callable[[], Tensor]]] = [
        (source.nbytes, lambda: source.sum()),
        (2 * source.nbytes, lambda: target.copy_(source)),
    ]
    for moved, move in moves:
        for _ in range(repeats):
            finish(device)
            started = time.perf_counter()
            move()
            finish(device)
            best = max(best, moved / (time.perf_counter() - started))
    return best


@contextmanager
def team(engine: Engine, context: list[int], workers: int) -> Iterator[Callable[[], object]]:
    """kvorum: everyone sees the context, the others and itself. The engine waits for the GPU."""
    shared = engine.block()
    engine.forward([Row(View(shared), ids=context)])
    own = [engine.block() for _ in range(workers)]
    views = [View(shared, *(block for block in own if block is not mine), mine) for mine in own]
    yield lambda: engine.forward([Row(view, ids=[7]) for view in views])


@contextmanager
def batch(model: Any, context: list[int], workers: int, device: torch.device) -> Iterator[Callable[[], object]]:
    """transformers: the forward of ``generate`` on a batch, every row with its own copy of the context."""
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        model(
            torch.tensor([context], device=device), **{cache_argument(model): cache}, use_cache=True, logits_to_keep=1
        )
        cache.batch_repeat_interleave(workers)
    last = torch.full((workers, 1), 7, device=device)

    @torch.inference_mode()
    def tick() -> None:
        model(last, **{cache_argument(model): cache}, use_cache=True)
        finish(device)

    yield tick


def measure(
    engine: Engine, context: int, workers: int, repeats: int, peer: bool, device: torch.device
) -> dict[str, Timing | None]:
    """Timings by side; None where it did not fit into the GPU's memory."""
    made = torch.Generator().manual_seed(0)
    ids: list[int] = torch.randint(5, engine.shape.vocab, (context,), generator=made).tolist()
    found: dict[str, Timing | None] = {}
    with ExitStack() as stack:
        jobs = {"kvorum": stack.enter_context(team(engine, ids, workers))}
        for _ in range(5):  # the bucket comes up, is captured, and every kernel is compiled
            jobs["kvorum"]()
        if peer:
            try:
                jobs["transformers"] = stack.enter_context(batch(engine.model, ids, workers, device))
                jobs["transformers"]()
            except torch.cuda.OutOfMemoryError:
                jobs.pop("transformers", None)
                found["transformers"] = None
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(repeats):
            for name, job in jobs.items():  # in turns: a slow spell meets both
                started = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - started)
        return found | {name: Timing.of(taken) for name, taken in seconds.items()}


def run(asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure everything that was asked for."""
    name = asked.device if asked.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    speed = bandwidth(device)
    model = build(asked.shape, device)
    room = max(asked.context) + max(asked.workers) * (asked.repeats + 64)
    engine = Engine(model, kv_tokens=room, attention=asked.attention)
    read, each = weight_bytes(model), engine.pool.bytes_per_token
    cells = []
    for context in asked.context:
        for workers in asked.workers:
            console.print(f"{workers} workers behind {context:,} tokens", style="dim")
            found = measure(engine, context, workers, asked.repeats, asked.peer, device)
            limit = (read + (context + workers) * each) / speed
            cells.append({"context": context, "workers": workers, "limit_seconds": limit, "sides": found})
    backend = engine.backend
    assert isinstance(backend, LocalBackend)
    graphs = backend.runner if isinstance(backend.runner, GraphRunner) else None
    return {
        "shape": asked.shape,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "dtype": str(engine.dtype).removeprefix("torch."),
        "attention": backend.attention.name,
        "graphs": 0 if graphs is None else len(graphs.buckets),
        "graphs_refused": None if graphs is None else graphs.refused,
        "bandwidth": speed,
        "weight_bytes": read,
        "bytes_per_token": each,
        "repeats": asked.repeats,
        "cells": cells,
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    console.print(
        f"{result['shape']}, random {result['dtype']} weights on {result['device']}, "
        f"{result['bandwidth'] / 1e9:.0f} GB/s, {result['attention']}, {result['graphs']} graphs, {result['date']}"
    )
    if result["graphs_refused"]:
        console.print(f"Not captured: {result['graphs_refused']}")
    ones = {c["context"]: c["sides"]["kvorum"].median for c in result["cells"] if c["workers"] == 1}
    for context in dict.fromkeys(cell["context"] for cell in result["cells"]):
        table = Table("workers", "median ms", "min", "max", "over the limit", "over one", "transformers ms", "over it")
        table.title = f"a tick behind {context:,} tokens"
        for cell in (c for c in result["cells"] if c["context"] == context):
            ours, theirs = cell["sides"]["kvorum"], cell["sides"].get("transformers")
            table.add_row(
                str(cell["workers"]),
                *(f"{1e3 * x:.2f}" for x in (ours.median, ours.min, ours.max)),
                f"{ours.median / cell['limit_seconds']:.2f}",
                f"{ours.median / ones[context]:.2f}" if context in ones else "",
                f"{1e3 * theirs.median:.2f}" if theirs else "did not fit" if "transformers" in cell["sides"] else "",
                f"{theirs.median / ours.median:.2f}" if theirs else "",
            )
        console.print(table)


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, measure, print and write; returns the result."""

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-8b")
    parser.add_argument("--device", default="auto", help="auto is the GPU if there is one")
    parser.add_argument("--context", type=numbers, default=[1024, 16384], help="shared tokens, such as 1024,16384")
    parser.add_argument("--workers", "-w", type=numbers, default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=30, help="ticks per cell, in turns with the peer's")
    parser.add_argument("--attention", default="auto", help="as of Engine")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave transformers out")
    parser.add_argument("--output", "-o", type=Path, help="write the figures to this JSON file")
    asked = parser.parse_args(words)
    console = Console()
    result = run(asked, console)
    show(result, console)
    if asked.output:
        asked.output.write_text(json.dumps(result, default=asdict, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
