"""Running a study: all cells that are not done, many at a time in the same ticks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from kvorum.api import Engine
from kvorum.engine.budget import Budget
from kvorum.lab import need
from kvorum.lab.detect.detect import Watch
from kvorum.lab.measure.attention_shares import EVERY, AttentionShares
from kvorum.lab.measure.coordination import measure
from kvorum.lab.measure.first_words import first_words
from kvorum.lab.measure.own_measures import own_measures
from kvorum.lab.study.cell import FINAL_TOKENS, Cell
from kvorum.lab.study.jobs import Progress, StudyJob, run_jobs
from kvorum.lab.study.ray_jobs import run_jobs_on_ray
from kvorum.lab.study.study import Study
from kvorum.lab.study.table import Record, tabulate
from kvorum.programs import find
from kvorum.runs.run import Run
from kvorum.runs.start import arun
from kvorum.sampling.sampling import Sampling
from kvorum.store.events import Event
from kvorum.store.held_blocks import HeldBlocks
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.store.study_records import Records

KEPT_BYTES = 1_000_000_000
"""The most bytes of encoded texts that a study keeps."""


def run_study(
    study: Study,
    folder: Path,
    load: Callable[[str], Engine],
    tell: Callable[[Progress], None] = lambda progress: None,
    ray: str | None = None,
) -> Progress:
    """Run what is not done yet and write ``table.csv`` and ``table.parquet``. Finished cells are kept whatever happens.

    Args:
        load: the engine of a model's name. tell: called after each cell; what it raises ends the study. ray: the
            address of a Ray cluster that runs the cells ("local" begins one); None: this process does.
    """
    need("pyarrow.parquet")  # of the table at the end: rather missed now
    records = Records[Record](folder)
    kept = HeldBlocks(folder / "kept", KEPT_BYTES) if study.kept else None
    jobs = [
        StudyJob(
            key=cell.key,
            model=cell.model,
            label=f"{cell.task}/{cell.item} {cell.arm}",
            run=partial(run_cell, study=study, cell=cell, folder=folder, kept=kept),
            work=float(cell.ticks * cell.workers + FINAL_TOKENS),
        )
        for cell in study.cells
    ]

    def load_for(model: str) -> Engine:
        engine = load(model)
        if study.attention:
            engine.check_tap()  # without a tap no cell could be run
        return engine

    try:
        if ray is not None:
            return run_jobs_on_ray(jobs, records, load_for, tell, study.concurrency, ray)
        return run_jobs(jobs, records, load_for, tell, study.concurrency)
    finally:
        tabulate(records, (cell.key for cell in study.cells))


_OF_CELL = ("model", "task", "item", "arm", "program", "channel", "match", "team", "workers", "budget", "seed")
"""What a record says of its cell."""


async def run_cell(engine: Engine, study: Study, cell: Cell, folder: Path, kept: KeptBlocks | None = None) -> Record:
    """One run and its record; ``folder``: of the study's results, for what is kept beside it. ``kept``: where encoded
    texts are."""
    item = cell.make()
    params: dict[str, Any] = cell.parameters(item)
    fact = cell.injected_fact(item)
    started: list[Run] = []
    watch = Watch(item)
    begun = False

    def listen(event: Event) -> None:
        """The budget begins with the first written token or latent step: set-up differs between arms."""
        nonlocal begun
        watch.feed(event)
        run = started[0]
        if not begun and (event["event"] == "tick" or run.ledger.latent):
            begun = True
            last = int(run.allowance.kept("ticks", math.inf))  # a forced answer comes on top
            run.state.budget = Budget(ticks=run.ledger.ticks - 1 + cell.ticks + last)
        if fact is not None:
            fact.listen(event, run)

    trace = folder / "traces" / f"{cell.key}.jsonl"
    if study.traces:
        trace.parent.mkdir(parents=True, exist_ok=True)
    result = await arun(
        engine,
        find(cell.program),
        item.task(whole=cell.alone, program=cell.program),
        workers=cell.workers,
        budget=Budget(ticks=1_000_000),
        sampling=Sampling(temperature=cell.temperature, top_p=0.95),
        seed=1000 * cell.seed + cell.item,
        trace=trace if study.traces else None,
        tap=EVERY if study.attention is True else int(study.attention),
        listener=listen,
        control=started.append,
        kept=kept,
        **params,
    )
    score, ledger = item.score(result.answer), result.ledger
    events = result.trace.events
    shares = AttentionShares.of(events) if study.attention else None
    if shares is not None:
        shares.save(folder / "taps" / f"{cell.key}.npz")
    floor = item.floor(50)
    return {
        "key": cell.key,
        "study": study.name,
        "weights": engine.about()["weights"],
        **{name: getattr(cell, name) for name in _OF_CELL},
        "score": score.soft,
        "solved": int(score.solved),
        "readable": int(score.readable),
        "outcome": result.outcome,
        "spent": result.spent or "",
        "answer": result.answer or "",
        **asdict(ledger),
        "total_tokens": ledger.tokens,
        "decode_equivalents": ledger.decoded + ledger.latent + ledger.prefill / study.prefill_ratio,
        "critical_ticks": sum(event["event"] in ("tick", "forward") for event in events),
        "wall_seconds": round(result.seconds, 4),
        "parts": dict(score.parts),
        "floor_random": round(floor["random"], 6),
        "floor_constant": round(floor["constant"], 6),
        "ceiling": floor["ceiling"],
        **measure(events, item),
        **first_words(events, item, find(cell.program).speaker),
        **own_measures(result.product),
        "findings": Counter(finding.mode for finding in watch.findings),
        **(fact.measure(events) if fact is not None else {}),
        **(shares.columns() if shares is not None else {}),
    }
