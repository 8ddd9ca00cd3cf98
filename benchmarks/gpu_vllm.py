"""The backend on vLLM, on one GPU or several: whether it is exact there, what its cache holds, and what a tick takes.

A model of random weights is written to a folder and loaded three times: by the local backend in float32 with the
reference attention, which is the measure; by the local backend in the model's own dtype, which says what rounding
explains; and on vLLM's workers, once with eager ticks and once with captured ones, whose cache takes what is free. All
play one program of views. Then W workers behind one context decode a token each per tick. It ends with 1 if anything is
further from the measure than twice what rounding explains. Nothing is said of other engines, or of real weights.

    python benchmarks/gpu_vllm.py -o one.json               # one GPU; ten minutes at most
    python benchmarks/gpu_vllm.py --ranks 4 -o four.json    # tensor parallel over four

``--shape tiny --device cpu`` runs the same code anywhere, slowly, in Triton's interpreter; its figures say nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

if "cpu" in sys.argv:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which transformers does

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from kvorum import Engine, Gap, Row, Span, View
from kvorum.backends.vllm.backend import VllmBackend
from kvorum.bench.result import Timing

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "qwen3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 64,
        "tie_word_embeddings": False,
    },
}
"""Qwen3 models."""
ROUNDING = 1e-4
"""What rounding explains in float32, of the length of a token's logits; in other dtypes it is measured."""


def write(shape: str, dtype: torch.dtype, device: torch.device, folder: Path) -> None:
    """A model of random weights, without a tokenizer."""
    config = AutoConfig.for_model("qwen3", **SHAPES[shape], max_position_embeddings=40960)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)


def play(engine: Engine) -> Tensor:
    """Logits ``[tokens, vocab]`` on the CPU of a team that sees itself, is joined and prunes: mostly a token a row."""
    made = torch.Generator().manual_seed(1)
    ids: list[int] = torch.randint(5, engine.shape.vocab, (200,), generator=made).tolist()
    found = []
    prompt, *own = (engine.block() for _ in range(4))
    engine.forward([Row(View(prompt), ids=ids[:60])])
    views = [View(prompt, own[1], own[0]), View(Span(prompt, 4, 40), Gap(7), own[0], own[1])]
    for step in range(14):
        if step == 6:
            views.append(View(Span(prompt, 0, 30), Span(prompt, 40, 60), own[0], own[2]))
        if step == 10:
            views[0] = views[0].splice(10, 25)
        found.append(engine.forward([Row(view, ids=[ids[60 + 3 * step + at]]) for at, view in enumerate(views)]).logits)
    return torch.cat([logits.float().cpu() for logits in found])


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The distance of a token's logits, as a part of their length; of the token where it is largest."""
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())


def tick(engine: Engine, context: int, workers: int, repeats: int) -> Timing:
    """Seconds of a tick in which ``workers`` see ``context`` tokens, each other and themselves, and decode one each."""
    shared = engine.block()
    engine.forward([Row(View(shared), ids=[at % engine.shape.vocab for at in range(context)])])
    own = [engine.block() for _ in range(workers)]
    views = [View(shared, *(block for block in own if block is not mine), mine) for mine in own]
    taken = []
    for at in range(repeats + 5):  # the bucket comes up, is captured, and every kernel is compiled
        started = time.perf_counter()
        engine.forward([Row(view, ids=[7]) for view in views])
        if at >= 5:
            taken.append(time.perf_counter() - started)
    return Timing.of(taken)


@contextmanager
def local(folder: Path, device: torch.device, **options: Any) -> Iterator[Engine]:
    """The local backend; its memory is given back."""
    engine = Engine.load(folder, device=device.type, quantize=None, kv_tokens=1024, **options)
    yield engine
    del engine
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def spread(folder: Path, device: torch.device, ranks: int, **options: Any) -> Iterator[tuple[Engine, VllmBackend]]:
    """The backend on vLLM; on one processor in this process, where it starts sooner."""
    alone = device.type == "cpu" and ranks == 1
    how = {"backend": "vllm", "executor": "uni" if alone else "mp", "tensor_parallel": ranks, **options}
    engine = Engine.load(folder, **how)
    assert isinstance(engine.backend, VllmBackend)
    try:
        yield engine, engine.backend
    finally:
        engine.backend.close()
        if alone:
            from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()


def run(asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure everything that was asked for."""
    name = asked.device if asked.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device, started = torch.device(name), time.perf_counter()
    gpu = device.type == "cuda"
    dtype = torch.bfloat16 if gpu else torch.float32
    kind = str(dtype).removeprefix("torch.")
    room = asked.context + max(asked.workers) * (asked.repeats + 64) + 2048
    played: dict[str, Tensor] = {}
    ticks: dict[str, dict[int, Timing]] = {"eager": {}, "graphs": {}}
    found: dict[str, Any] = {}

    def say(words: str) -> None:
        console.print(f"{time.perf_counter() - started:5.0f} s  {words}", style="dim")

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        say(f"writing {asked.shape}, random {kind} weights")
        write(asked.shape, dtype, device, folder)
        for label, how in (("measure", "float32"), ("local", kind)):
            say(f"the local backend in {how}")
            with local(folder, device, dtype=how, attention="reference" if label == "measure" else "auto") as engine:
                played[label] = play(engine)
        for label, runner in (("eager", "generic"), ("graphs", "graphs")):
            say(f"vLLM's workers, {label}")
            how_many = room if runner == "generic" or not gpu else None
            options = {"attention": "triton", "runner": runner, "kv_tokens": how_many, "dtype": kind}
            with spread(folder, device, asked.ranks, **options) as (engine, backend):
                played[label] = play(engine)
                for workers in asked.workers:
                    say(f"{workers} workers behind {asked.context:,} tokens, {label}")
                    ticks[label][workers] = tick(engine, asked.context, workers, asked.repeats)
                if backend.static is not None:
                    found["cache"] = {"tokens": backend.cache.slots, "bytes_per_token": backend.cache.bytes_per_token}
                    found["captured"], found["replayed"] = backend.static.captured, backend.static.replayed
                    found["refused"] = backend.static.refused
                found["rounding"] = backend.rounding
    explained = max(ROUNDING, apart(played["local"], played["measure"])) if gpu else ROUNDING
    far = {label: apart(played[label], played["measure"]) for label in ("local", "eager", "graphs")}
    far["graphs from eager"] = apart(played["graphs"], played["eager"])
    return {
        "shape": asked.shape,
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "ranks": asked.ranks,
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("torch", "transformers", "kvorum")},
        "dtype": kind,
        **found,
        "explained": explained,
        "apart": far,
        "good": all(distance <= 2 * explained for distance in far.values()) and not found["refused"],
        "context": asked.context,
        "ticks": [
            {"workers": workers, **{label: vars_of(ticks[label][workers]) for label in ticks}}
            for workers in asked.workers
        ],
        "seconds": time.perf_counter() - started,
    }


def vars_of(timing: Timing) -> dict[str, float]:
    """Milliseconds."""
    return {"median": 1e3 * timing.median, "min": 1e3 * timing.min, "max": 1e3 * timing.max}


def show(result: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    cache = result["cache"]
    console.print(
        f"{result['shape']}, random {result['dtype']} weights on {result['ranks']} x {result['device']}, "
        f"{result['rounding']}; cache of {cache['tokens']:,} tokens, "
        f"{cache['tokens'] * cache['bytes_per_token'] / 1e9:.2f} GB over all ranks; {result['captured']} graphs, "
        f"{result['replayed']} replays; {result['seconds']:.0f} s, {result['date']}"
    )
    if result["refused"]:
        console.print(f"Not captured: {result['refused']}")
    table = Table("logits", "furthest", title=f"from float32; rounding explains {result['explained']:.1e}")
    for name, distance in result["apart"].items():
        table.add_row(name, f"{distance:.1e}")
    console.print(table)
    table = Table("workers", "eager ms", "graphs ms", "min", "max", "eager over graphs")
    table.title = f"a tick behind {result['context']:,} tokens"
    for cell in result["ticks"]:
        eager, graphs = cell["eager"], cell["graphs"]
        numbers = (eager["median"], graphs["median"], graphs["min"], graphs["max"], eager["median"] / graphs["median"])
        table.add_row(str(cell["workers"]), *(f"{x:.2f}" for x in numbers))
    console.print(table)
    console.print("good" if result["good"] else "NOT GOOD: further apart than twice what rounding explains, or refused")


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, measure, print and write; returns the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="auto is the GPU if there is")
    parser.add_argument("--ranks", type=int, default=1, help="processes that share each layer")
    parser.add_argument("--context", type=int, default=4096, help="tokens that all workers see")
    parser.add_argument(
        "--workers", "-w", type=lambda text: [int(word) for word in text.split(",")], default=[1, 8, 32]
    )
    parser.add_argument("--repeats", type=int, default=30, help="ticks per figure")
    parser.add_argument("--output", "-o", type=Path, help="write the figures to this JSON file")
    asked = parser.parse_args(words)
    console = Console()
    result = run(asked, console)
    show(result, console)
    if asked.output:
        asked.output.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    sys.exit(0 if main()["good"] else 1)
