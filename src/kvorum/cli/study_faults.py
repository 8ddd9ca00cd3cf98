"""`kvorum study faults`: inject faults, watch with the detectors, say how good they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import check_model
from kvorum.cli.study_progress import exit_code, followed
from kvorum.errors import BadRequest
from kvorum.wording import clock

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine


def faults(args: Namespace) -> int:
    """Returns the exit code: 1 where runs failed."""
    import torch

    from kvorum.lab.faults.scenarios import SCENARIOS
    from kvorum.lab.faults.study import REWORDED, SCRIPTED, fault_runs, run_faults, write_results

    if min(args.dev, args.seeds, args.model_dev, args.model_seeds) < 1:
        raise BadRequest("--dev, --seeds, --model-dev and --model-seeds must be at least 1.")
    scenarios = args.scenarios.split(",") if args.scenarios else list(SCENARIOS)
    seeds = range(args.dev + args.seeds)
    todo = fault_runs(SCRIPTED, scenarios, seeds) + fault_runs(REWORDED, scenarios, seeds[args.dev :])
    command = f"kvorum study faults --dev {args.dev} --seeds {args.seeds}"
    if args.model != "none":
        model = check_model(args.model)
        tried = [*range(args.model_dev), *range(args.dev, args.dev + args.model_seeds)]
        todo += fault_runs(args.model, scenarios, tried)
        command += f" --model {args.model} --model-dev {args.model_dev} --model-seeds {args.model_seeds}"

    def load(by: str) -> Engine:
        from kvorum.api import Engine
        from kvorum.lab.faults.scripted_engine import scripted_engine

        scripted = by in (SCRIPTED, REWORDED)
        torch.set_num_threads(1 if scripted else threads)  # products so small are not worth sharing
        return scripted_engine() if scripted else Engine.load(model)

    threads = torch.get_num_threads()
    try:
        with followed(args, "runs") as tell:
            records, progress = run_faults(todo, Path(args.output), load, tell)
    finally:
        torch.set_num_threads(threads)
    command += f" --scenarios {args.scenarios}" if args.scenarios else ""
    path = write_results(records, Path(args.output), args.dev, command)
    told = {"runs": progress.total, "done": progress.done, "failed": progress.failed, "report": str(path)}
    if args.json:
        print(json.dumps({**told, "seconds": round(progress.seconds, 2)}, ensure_ascii=False))
    else:
        print(path.read_text(encoding="utf-8"))
        print(f"{progress.done} of {progress.total} runs in {clock(progress.seconds)}; {path}")
    return exit_code(progress)
