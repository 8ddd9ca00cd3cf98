"""`make soak`: `kvorum serve` under load, faults and bad input, with the figures of docs/reliability.md.

Each part starts a real server process with smollm2-135m and prints one line for each bound, the figure as measured.

    python benchmarks/soak [load load-agents ttft gone slow fuzz kills] [--fuzz 10000] [--kills 50]
    python benchmarks/soak replicas overhead      # two replicas under Ray Serve, in an environment that has it
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import faults
import fuzz
import load
import slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help="load load-agents ttft gone slow fuzz kills (default: these), replicas overhead"
    )
    parser.add_argument("--fuzz", type=int, default=10000, metavar="REQUESTS")
    parser.add_argument("--kills", type=int, default=50, metavar="N")
    args = parser.parse_args()
    parts: dict[str, Callable[[Path], None]] = {
        "load": load.load, "load-agents": load.load_agents, "ttft": load.ttft, "gone": faults.gone, "slow": slow.slow,
        "fuzz": lambda at: fuzz.fuzz(at, args.fuzz), "kills": lambda at: faults.kills(at, args.kills),
    }  # fmt: skip
    for name in args.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            print(f"-- {name}", flush=True)
            (parts | _with_ray(args.parts))[name](Path(folder))


def _with_ray(asked: list[str]) -> dict[str, Callable[[Path], None]]:
    """The parts that need Ray, which is imported if they are asked for."""
    if not {"replicas", "overhead"} & {*asked}:
        return {}
    import overhead
    import replicas

    return {"replicas": replicas.kill_one, "overhead": overhead.overhead}


if __name__ == "__main__":
    main()
