"""What a tick costs on vLLM's workers: beside the local backend with the same kernels, and beside vLLM's own decode.

One worker, eight that do not see each other, and eight that do share one context and write one token each, in float32;
stock vLLM decodes as many requests with that context from its prefix cache, on the same weights: without its compiler,
as kvorum drives its workers unless told otherwise, and with it, as it comes; each beside kvorum's workers of the same
kind. Its requests never see each other: those who do read the more than they, the longer they write. One process has
all cores, two stages share them.

All sides are loaded at once, each in processes of its own, and take turns of a few ticks, while those of the others are
stopped: memory that is slower for a second is slower for all. What is compared are the medians of one turn.

    .venv-vllm/bin/python benchmarks/vllm_ticks.py -o ticks.json

Some ten minutes, some of them vLLM's compiler's when it runs for the first time. A larger model wants its sides told:
``-m qwen2.5-coder-1.5b --sides workers-1,stock-eager`` takes 15 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

from kvorum import Engine
from kvorum.backends.vllm.spread import SpreadOptions
from kvorum.bench.engines.kvorum import Shared
from kvorum.bench.engines.side import seconds, tokens
from kvorum.bench.engines.vllm import Paged
from kvorum.models.load import find_folder

SIDES = ("local", "workers-1", "workers-2", "workers-compiled", "stock-eager", "stock")
TEAMS = {"1 worker": 1, "8 workers apart": 8, "8 workers who see each other": 8}
CONTEXT, TICKS, WARM = 400, 6, 2
"""Tokens of the context; ticks of a turn, and those before that do not count."""
BOUND = 1.05
_PAIRS = (
    ("workers-1", "local", None),
    ("workers-2", "local", None),
    ("workers-compiled", "local", None),
    ("workers-1", "stock-eager", BOUND),
    ("workers-compiled", "stock", BOUND),
    ("workers-1", "stock", None),
)


@dataclass(frozen=True)
class Found:
    """Of one team. ``ms``: of each side the median of its ticks, by turn."""

    team: str
    ms: dict[str, list[float]]

    def over(self, side: str, other: str) -> list[float]:
        """Time of a side over another's, by turn."""
        return [mine / theirs for mine, theirs in zip(self.ms[side], self.ms[other], strict=True)]


class Side:
    """The processes of one side: stopped but for its turns."""

    def __init__(self, name: str, model: str, turns: int) -> None:
        words = [sys.executable, __file__, "-m", model, "--turns", str(turns), "--side", name]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.kernels = self._answer()
        self._signal(signal.SIGSTOP)

    def ask(self, what: str) -> str:
        """Let it do something, alone."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        said = self._answer()
        self._signal(signal.SIGSTOP)
        return said

    def end(self) -> None:
        """End its processes."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _answer(self) -> str:
        """What it says to us; vLLM prints other lines."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("= "):
                return line[2:].strip()
        raise SystemExit("A side has ended; what it said stands above.")

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)


def load(side: str, model: str, longest: int) -> Shared | Paged:
    """One side, with the model."""
    if side.startswith("stock"):
        threads = os.cpu_count() or 1
        return Paged(find_folder(model).folder, longest=longest, threads=threads, eager=side == "stock-eager")
    kv_tokens = longest * max(TEAMS.values())
    if side == "local":
        return Shared(Engine.load(model, dtype="float32", quantize=None, kv_tokens=kv_tokens))
    spread = SpreadOptions(pipeline_parallel=2 if side == "workers-2" else 1)
    if side == "workers-compiled":
        spread["vllm"] = {"enforce_eager": False}
    return Shared(Engine.load(model, backend="vllm", dtype="float32", kv_tokens=kv_tokens, **spread))


def serve(side: str, model: str, turns: int) -> None:
    """What a side does: takes a team of that name, and a turn when it is told so."""
    spare = (turns + 1) * (TICKS + WARM) + 8
    made = load(side, model, CONTEXT + spare)
    print("=", made.kernels() if isinstance(made, Paged) else made.engine.backend.rounding, flush=True)
    asked = sys.stdin.readline().strip()
    while asked:
        made.read(tokens(30000, CONTEXT))
        if isinstance(made, Shared) and asked.endswith("apart"):
            team = made.spans(1, TEAMS[asked])
        else:
            team = made.team(TEAMS[asked], spare)
        with team as tick:
            print("= ready", flush=True)
            while (asked := sys.stdin.readline().strip()) == "turn":
                spent = [seconds(tick) for _ in range(WARM + TICKS)]
                print("=", 1000 * median(spent[WARM:]), flush=True)


def run(sides: dict[str, Side], turns: int) -> list[Found]:
    """All turns of all sides, forwards and backwards in turn; the first does not count."""
    found = []
    for team in TEAMS:
        ms: dict[str, list[float]] = {name: [] for name in sides}
        for side in sides.values():
            side.ask(team)
        for at in range(turns + 1):
            for name in list(sides)[:: -1 if at % 2 else 1]:
                ms[name].append(float(sides[name].ask("turn")))
        found.append(Found(team, {name: spent[1:] for name, spent in ms.items()}))
    return found


def report(found: Sequence[Found]) -> str:
    """What was found, team by team."""
    lines = []
    for each in found:
        told = ", ".join(f"{side} {median(spent):.1f}" for side, spent in each.ms.items())
        lines.append(f"{each.team}, ms a tick: {told}")
        for side, other, bound in _PAIRS:
            if side in each.ms and other in each.ms:
                low, mid, high = quantiles(each.over(side, other), n=4)
                mark = "    " if bound is None else "ok  " if mid <= bound else "MISS"
                most = "" if bound is None else f", at most {bound}"
                lines.append(
                    f"  {mark} {side} takes {mid:.2f} times {other}'s time (quartiles {low:.2f}, {high:.2f}{most})"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="smollm2-135m")
    parser.add_argument("-o", "--out", type=Path, default=Path("vllm_ticks.json"))
    parser.add_argument("--sides", default=",".join(SIDES), help="which, by commas")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        serve(args.side, args.model, args.turns)
        return
    sides: dict[str, Side] = {}
    try:
        for name in args.sides.split(","):
            sides[name] = Side(name, args.model, args.turns)
            print(f"{name}: {sides[name].kernels}", flush=True)
        found = run(sides, args.turns)
    finally:
        for side in sides.values():
            side.end()
    kernels = {name: side.kernels for name, side in sides.items()}
    told = {"model": args.model, "kernels": kernels, "found": [asdict(each) for each in found]}
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    print(report(found))


if __name__ == "__main__":
    main()
