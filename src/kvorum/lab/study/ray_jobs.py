"""A study's jobs on the machines of a Ray cluster: batches as Ray's tasks, their records in the one file as ever.

A batch whose worker dies is run again by Ray, on another. What it does not bring home is told of as failed, and run by
whoever runs the study next: a record is kept here or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from kvorum.api import Engine
from kvorum.errors import BadRequest, need
from kvorum.lab.study.jobs import Progress, StudyJob, run_jobs
from kvorum.store.study_records import R, Records

_TRIES = 5
"""How often a batch is run again whose worker has died."""
_ENGINES: dict[str, Engine] = {}
"""Of a worker process, which runs one batch after the other."""


def batches(jobs: Sequence[StudyJob[R]], concurrency: int, workers: int) -> list[list[StudyJob[R]]]:
    """The jobs in parts, each of one model: as many as run in the same ticks, fewer where workers are free."""
    found = []
    for model in dict.fromkeys(job.model for job in jobs):
        some = [job for job in jobs if job.model == model]
        size = max(1, min(concurrency, math.ceil(len(some) / max(1, workers))))
        found += [some[at : at + size] for at in range(0, len(some), size)]
    return found


def run_batch(
    jobs: Sequence[StudyJob[R]], load: Callable[[str], Engine], concurrency: int
) -> tuple[list[R], list[str]]:
    """Run jobs in this process. Returns their records, and what has failed."""

    def loaded(model: str) -> Engine:
        if model not in _ENGINES:
            _ENGINES.clear()  # one model at a time
            _ENGINES[model] = load(model)
        return _ENGINES[model]

    with TemporaryDirectory() as folder:
        records = Records[R](Path(folder))
        progress = run_jobs(jobs, records, loaded, lambda progress: None, concurrency)
        return list(records.done.values()), progress.failed


def run_jobs_on_ray(
    jobs: Sequence[StudyJob[R]],
    records: Records[R],
    load: Callable[[str], Engine],
    tell: Callable[[Progress], None],
    concurrency: int,
    address: str,
) -> Progress:
    """As ``run_jobs``, on the cluster at ``address``; "local" begins one on this machine, "auto" finds one.

    Raises:
        BadRequest: no cluster answers. MissingExtra: Ray is not installed.
    """
    ray = need("ray", "kvorum study run --ray", "ray")
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise BadRequest(f"No Ray cluster answers at {address} ({why}); give --ray local, or start one.") from error
    try:
        todo = [job for job in jobs if job.key not in records.done]
        progress = Progress(len(jobs), len(jobs) - len(todo), whole=sum(job.work for job in todo))
        tell(progress)
        task = ray.remote(num_cpus=1, max_retries=_TRIES)(run_batch)
        parts = batches(todo, concurrency, int(ray.cluster_resources().get("CPU", 1)))
        waiting = {task.remote(part, load, concurrency): part for part in parts}
        while waiting:
            ready, _ = ray.wait(list(waiting))
            for result in ready:
                part = waiting.pop(result)
                try:
                    found, failed = ray.get(result)
                except ray.exceptions.RayError as error:
                    why = " ".join(str(error).split())[-200:]
                    found, failed = [], [f"{job.label}: its worker did not end it ({why})" for job in part]
                for record in found:
                    records.add(record)
                progress.done += len(found)
                progress.failed += failed
                progress.work += sum(job.work for job in part)
                tell(progress)
        return progress
    finally:
        ray.shutdown()
