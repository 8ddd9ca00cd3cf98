"""The fault study: scenarios times faults times seeds, said by heart and left to a model; labelled records.

Runs share ticks; a finished one is never run again. Detectors watch online, while the runs go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.engine.budget import Budget
from kvorum.engine.text import encode
from kvorum.errors import UnknownName
from kvorum.lab.detect.detect import Watch
from kvorum.lab.faults import scripts
from kvorum.lab.faults.judge import as_markdown, tune
from kvorum.lab.faults.scenarios import SCENARIOS
from kvorum.lab.study.records import Record, Records, write_table
from kvorum.lab.study.runner import Job, Progress, run_jobs
from kvorum.programs import find
from kvorum.runs.run import arun
from kvorum.sampling.sampling import Sampling
from kvorum.store.traces import Event
from kvorum.wording import unknown

if TYPE_CHECKING:
    from kvorum.api import Engine

SCRIPTED, REWORDED = "scripted", "reworded"
CLEAN = 3
"""Runs without a fault, for each scenario and seed."""


@dataclass(frozen=True, slots=True)
class FaultRun:
    """One run. ``by``: "scripted", "reworded" (scripted, the fault in other words), or the model that writes."""

    by: str
    scenario: str
    fault: str
    seed: int
    number: int = 0

    @property
    def key(self) -> str:
        """Of what determines the run."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]


def cells(by: str, scenarios: Sequence[str], seeds: Iterable[int]) -> list[FaultRun]:
    """All runs of these scenarios. Raises UnknownName."""
    for name in scenarios:
        if name not in SCENARIOS:
            raise UnknownName(unknown("scenario", name, SCENARIOS))
    found = []
    scripted = by in (SCRIPTED, REWORDED)
    for seed in seeds:
        for name in scenarios:
            scenario = SCENARIOS[name]
            if not scripted and not scenario.tokens:
                continue
            skipped = () if scripted else scenario.only_scripted
            if by == REWORDED:
                skipped = tuple(fault for fault in scenario.faults if fault not in scripts.REWORDED)
            else:
                found += [FaultRun(by, name, "", seed, number) for number in range(CLEAN)]
            found += [FaultRun(by, name, fault, seed) for fault in scenario.faults if fault not in skipped]
    return found


async def run_cell(engine: Engine, cell: FaultRun, trace: Path | None = None) -> Record:
    """One labelled run and its record."""
    scenario = SCENARIOS[cell.scenario]
    scripted = cell.by in (SCRIPTED, REWORDED)
    seed = cell.seed + 10_000 * cell.number
    item, injections, labels = scenario.plan(
        cell.fault, seed, scripted, partial(encode, engine.tokenizer), cell.by == REWORDED
    )
    watch = Watch(item)

    def listen(event: Event) -> None:
        watch.feed(event)

    result = await arun(
        engine,
        find(scenario.program),
        item.task(whole=scenario.program == "solo"),
        workers=scenario.workers,
        budget=Budget(ticks=1_000_000) if scripted else Budget(decoded=scenario.tokens),
        sampling=Sampling(temperature=0.6, top_p=0.95),
        seed=seed,
        trace=trace,
        listener=listen,
        inject=injections,
        **(dict(item.params) if item.programs else {})
        | dict(scenario.params)
        | ({} if scripted else dict(scenario.small)),
    )
    took = [event for event in result.trace.events if event["event"] == "fault"]
    return {
        "key": cell.key,
        **asdict(cell),
        "program": scenario.program,
        "labels": labels,
        "took": bool(took),
        "fault_tick": took[0]["tick"] if took else None,
        "findings": [[f.mode, f.worker, f.tick, f.evidence] for f in watch.findings],
        "strengths": [[mode, worker, round(s, 4)] for (mode, worker), s in watch.strengths.items()],
        "ticks": watch.state.tick + 1,
        "outcome": result.outcome,
        "seconds": round(result.seconds, 3),
    }


def run_faults(
    todo: Sequence[FaultRun],
    folder: Path,
    load: Callable[[str], Engine],
    tell: Callable[[Progress], None] = lambda progress: None,
    *,
    concurrency: int = 16,
) -> tuple[list[Record], Progress]:
    """Run what is not done yet; the records of all of ``todo`` in its order, and how it went. Finished cells are kept.

    Args:
        load: the engine of "scripted", "reworded" or a model's name. tell: called after each cell; what it raises ends
            the study.
    """
    records = Records(folder)
    left = [cell for cell in todo if cell.key not in records.done]
    progress = Progress(len(todo), len(todo) - len(left))
    progress.whole = float(len(left))
    tell(progress)

    async def run_all(engine: Engine, mine: Sequence[FaultRun]) -> None:
        jobs = [
            Job(partial(run_cell, engine, cell), f"{cell.by} {cell.scenario} {cell.fault or 'clean'}/{cell.seed}")
            for cell in mine
        ]
        await run_jobs(jobs, records, progress, tell, concurrency)

    try:
        for by in dict.fromkeys(cell.by for cell in left):
            asyncio.run(run_all(load(by), [cell for cell in left if cell.by == by]))
    finally:
        records.close()
    return [records.done[cell.key] for cell in todo if cell.key in records.done], progress


def write_results(records: Sequence[Record], folder: Path, dev: int, command: str) -> Path:
    """``faults.csv`` with all records and ``faults.md`` with the table of held-out seeds: those from ``dev`` on."""
    write_table([{k: v for k, v in record.items() if k != "strengths"} for record in records], folder / "table.csv")
    held_out = [record for record in records if record["seed"] >= dev]
    groups = {f"By {by}": [r for r in held_out if r["by"] == by] for by in dict.fromkeys(r["by"] for r in held_out)}
    lines = ["# Faults and detectors", "", f"Held-out seeds from {dev} on; 95% Wilson intervals; `{command}`", ""]
    lines.append(as_markdown(groups))
    tuned = tune([record for record in records if record["seed"] < dev])
    if tuned:
        best = ", ".join(f"{mode} {at:.3g}" for mode, at in tuned.items())
        lines.append(f"Thresholds with the best F1 on the development seeds below {dev}: {best}.\n")
    path = folder / "faults.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
