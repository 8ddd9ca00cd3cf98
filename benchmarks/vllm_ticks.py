"""What a tick costs on vLLM's workers: beside the local backend with the same kernels, and beside vLLM's own decode.

W = 1 and 8 workers share one context, see each other and write one token each, in float32; stock vLLM decodes as many
requests with that context from its prefix cache, on the same weights: without its compiler, as kvorum drives its
workers unless told otherwise, and with it, as it comes; each beside kvorum's workers of the same kind. One process has
all cores, two stages share them. Each side is a process of its own, and all are run in turn, round for round: what is
compared is a round's. Each says which attention computes, and with how many threads.

    .venv-vllm/bin/python benchmarks/vllm_ticks.py -o ticks.jsonl

Some ten minutes, some of them vLLM's compiler's in the first round; what is in the file is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from kvorum import Engine
from kvorum.backends.vllm.spread import SpreadOptions
from kvorum.bench.engines.kvorum import Shared
from kvorum.bench.engines.side import seconds, tokens
from kvorum.bench.engines.vllm import Paged
from kvorum.models.load import find_folder

SIDES = ("local", "workers-1", "workers-2", "workers-compiled", "stock-eager", "stock")
WORKERS = (1, 8)
CONTEXT, TICKS, WARM = 400, 40, 5
_PAIRS = (
    ("workers-1", "stock-eager", "without its compiler"),
    ("workers-1", "stock", "as it comes"),
    ("workers-compiled", "stock", "as it comes"),
)


@dataclass(frozen=True)
class Measured:
    """Of one side in one round. ``ms``: milliseconds of a tick, the median, by W; ``kernels``: what computes."""

    ms: dict[str, float]
    kernels: str


def load(side: str, model: str) -> Shared | Paged:
    """One side, with the model."""
    if side.startswith("stock"):
        longest, threads = CONTEXT + TICKS + WARM + 8, os.cpu_count() or 1
        return Paged(find_folder(model).folder, longest=longest, threads=threads, eager=side == "stock-eager")
    kv_tokens = 4096
    if side == "local":
        return Shared(Engine.load(model, dtype="float32", quantize=None, kv_tokens=kv_tokens))
    spread = SpreadOptions(pipeline_parallel=2 if side == "workers-2" else 1)
    if side == "workers-compiled":
        spread["vllm"] = {"enforce_eager": False}
    return Shared(Engine.load(model, backend="vllm", dtype="float32", kv_tokens=kv_tokens, **spread))


def measure(side: str, model: str) -> Measured:
    """Load a side, and time its ticks."""
    made = load(side, model)
    found = {}
    for workers in WORKERS:
        made.read(tokens(30000, CONTEXT))
        with made.team(workers, TICKS + WARM + 4) as tick:
            spent = [seconds(tick) for _ in range(WARM + TICKS)]
        found[str(workers)] = 1000 * median(spent[WARM:])
    if isinstance(made, Paged):
        return Measured(found, made.kernels())
    kernels = made.engine.backend.rounding
    made.engine.backend.close()
    return Measured(found, kernels)


def run(out: Path, model: str, rounds: int) -> dict[tuple[int, str], Measured]:
    """All rounds, each side in a process of its own; what is in the file stays."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    mine = [line for line in lines if line["model"] == model and "kernels" in line]
    done = {(line["round"], line["side"]): Measured(line["ms"], line["kernels"]) for line in mine}
    for at in range(rounds):
        for side in SIDES[:: -1 if at % 2 else 1]:
            if (at, side) in done:
                continue
            with tempfile.NamedTemporaryFile("r", suffix=".json") as told:
                subprocess.run([sys.executable, __file__, "-m", model, "--side", side, "-o", told.name], check=True)
                done[at, side] = Measured(**json.loads(told.read()))
            with out.open("a") as file:
                file.write(json.dumps({"model": model, "round": at, "side": side, **asdict(done[at, side])}) + "\n")
            print(f"round {at + 1}, {side}: {done[at, side]}", flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="smollm2-135m")
    parser.add_argument("-o", "--out", type=Path, default=Path("vllm_ticks.jsonl"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        args.out.write_text(json.dumps(asdict(measure(args.side, args.model))))
        return
    done = run(args.out, args.model, args.rounds)

    def ratio(side: str, over: str, workers: int) -> float:
        key = str(workers)
        return median(done[at, side].ms[key] / done[at, over].ms[key] for at in range(args.rounds))

    for side in SIDES:
        print(f"{side}: {done[0, side].kernels}")
    for workers in WORKERS:
        told = ", ".join(
            f"{side} {median(done[at, side].ms[str(workers)] for at in range(args.rounds)):.1f}" for side in SIDES
        )
        print(f"W = {workers}: ms a tick: {told}")
        for side in SIDES[1:4]:
            print(f"  {side}: {ratio(side, 'local', workers):.2f} times the local backend's")
        for side, stock, how in _PAIRS:
            share = ratio(side, stock, workers)
            told = f"{share:.2f} times stock vLLM's {how} (at most 1.05)"
            print(f"  {'ok  ' if share <= 1.05 else 'MISS'} {side}: {told}")


if __name__ == "__main__":
    main()
