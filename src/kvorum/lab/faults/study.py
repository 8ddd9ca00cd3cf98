"""The fault study: scenarios times faults times seeds, said by heart and left to a model; labelled records.

Runs share ticks; a finished one is never run again. Detectors watch online, while the runs go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from kvorum.api import Engine
from kvorum.engine.budget import Budget
from kvorum.engine.text import encode
from kvorum.lab.detect.detect import Watch
from kvorum.lab.faults.catalogue import FAULTS
from kvorum.lab.faults.judge import FaultRecord, pieces, tune
from kvorum.lab.faults.scenarios import SCENARIOS
from kvorum.lab.report.page import Piece, as_markdown
from kvorum.lab.study.jobs import Progress, StudyJob, run_jobs
from kvorum.lab.study.table import write_table
from kvorum.programs import find
from kvorum.runs.start import arun
from kvorum.sampling.sampling import Sampling
from kvorum.store.study_records import Records, record_key
from kvorum.wording import check_known

SCRIPTED, REWORDED = "scripted", "reworded"
CONCURRENCY = 16
"""Runs at a time, which share ticks."""
CLEAN = 3
"""Runs without a fault, for each scenario and seed."""


@dataclass(frozen=True, slots=True)
class FaultRun:
    """A run to make. ``by``: "scripted", "reworded" (scripted, the fault in other words), or the model that writes."""

    by: str
    scenario: str
    fault: str
    seed: int
    number: int = 0

    @property
    def key(self) -> str:
        """A hash of what determines the run, under the names that it had when the first ones were kept."""
        determines = asdict(self)
        determines["world"] = determines.pop("scenario")
        return record_key(determines)

    @property
    def scripted(self) -> bool:
        """Whether every word is given, and no model writes."""
        return self.by in (SCRIPTED, REWORDED)


def fault_runs(by: str, scenarios: Sequence[str], seeds: Iterable[int]) -> list[FaultRun]:
    """All runs of these scenarios. Raises UnknownName."""
    for name in scenarios:
        check_known("scenario", name, SCENARIOS)
    found = []
    by_model = by not in (SCRIPTED, REWORDED)
    for seed, name in product(seeds, scenarios):
        scenario = SCENARIOS[name]
        if by_model and not scenario.tokens:
            continue
        left_out = scenario.only_scripted if by_model else ()
        if by != REWORDED:
            found += [FaultRun(by, name, "", seed, number) for number in range(CLEAN)]
        for fault in scenario.faults:
            if fault not in left_out and (by != REWORDED or FAULTS[fault].reworded):
                found.append(FaultRun(by, name, fault, seed))
    return found


async def run_fault(engine: Engine, asked: FaultRun, trace: Path | None = None) -> FaultRecord:
    """One labelled run and its record."""
    scenario = SCENARIOS[asked.scenario]
    program, seed = find(scenario.program), asked.seed + 10_000 * asked.number
    encoder = partial(encode, engine.tokenizer)
    made = scenario.make(asked.fault, seed, asked.scripted, encoder, asked.by == REWORDED)
    watch = Watch(made.item)
    params: dict[str, Any] = {**made.item.given.get(program.name, {}), **scenario.params}
    result = await arun(
        engine,
        program,
        made.item.task(whole=program.most_workers == 1),
        workers=scenario.workers,
        budget=Budget(ticks=1_000_000) if asked.scripted else Budget(decoded=scenario.tokens),
        sampling=Sampling(temperature=0.6, top_p=0.95),
        seed=seed,
        trace=trace,
        listener=watch.feed,
        inject=made.injections,
        **params | ({} if asked.scripted else dict(scenario.small)),
    )
    took = [event for event in result.trace.events if event["event"] == "fault"]
    return {
        "key": asked.key,
        "by": asked.by,
        "scenario": asked.scenario,
        "fault": asked.fault,
        "seed": asked.seed,
        "number": asked.number,
        "program": program.name,
        "labels": made.labels,
        "took": bool(took),
        "fault_tick": took[0]["tick"] if took else None,
        "findings": [(f.mode, f.worker, f.tick, f.evidence) for f in watch.findings],
        "strengths": [(mode, worker, round(s, 4)) for (mode, worker), s in watch.strengths.items()],
        "ticks": watch.state.tick + 1,
        "outcome": result.outcome,
        "seconds": round(result.seconds, 3),
    }


def run_faults(
    todo: Sequence[FaultRun],
    folder: Path,
    load: Callable[[str], Engine],
    tell: Callable[[Progress], None] = lambda progress: None,
) -> tuple[list[FaultRecord], Progress]:
    """Run what is not done yet; the records of all of ``todo`` in its order, and how it went. Finished runs are kept.

    Args:
        load: the engine of "scripted", "reworded" or a model's name. tell: called after each run; what it raises ends
            the study.
    """
    records = Records[FaultRecord](folder)
    jobs = [
        StudyJob(
            key=one.key,
            model=one.by,
            label=f"{one.by} {one.scenario} {one.fault or 'clean'}/{one.seed}",
            run=partial(run_fault, asked=one),
        )
        for one in todo
    ]
    progress = run_jobs(jobs, records, load, tell, CONCURRENCY)
    return [records.done[one.key] for one in todo if one.key in records.done], progress


def write_results(records: Sequence[FaultRecord], folder: Path, dev: int, command: str) -> Path:
    """``faults.csv`` with all records and ``faults.md`` with the table of held-out seeds: those from ``dev`` on."""
    write_table([{k: v for k, v in record.items() if k != "strengths"} for record in records], folder / "table.csv")
    held_out = [record for record in records if record["seed"] >= dev]
    groups = {f"By {by}": [r for r in held_out if r["by"] == by] for by in dict.fromkeys(r["by"] for r in held_out)}
    intro = f"Held-out seeds from {dev} on; 95% Wilson intervals; `{command}`"
    found: list[Piece] = ["# Faults and detectors", intro, *pieces(groups)]
    if tuned := tune([record for record in records if record["seed"] < dev]):
        best = ", ".join(f"{mode} {at:.3g}" for mode, at in tuned.items())
        found.append(f"Thresholds with the best F1 on the development seeds below {dev}: {best}.")
    path = folder / "faults.md"
    path.write_text(as_markdown(found), encoding="utf-8")
    return path
