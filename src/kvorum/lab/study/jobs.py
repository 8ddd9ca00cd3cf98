"""Jobs: runs to be recorded, several at a time, and how far they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from kvorum.api import Engine
from kvorum.errors import KvorumError
from kvorum.store.study_records import R, Records


@dataclass
class Progress:
    """How far a study is. Worker ticks: ``work`` of the cells that this process has done, ``busy`` of those under way,
    ``whole`` of all it has to do."""

    total: int
    done: int
    work: float = 0.0
    busy: float = 0.0
    whole: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    failed: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds since this process began with the study."""
        return time.perf_counter() - self.started

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at the pace so far; what is under way counts as half done."""
        done = self.work + self.busy / 2
        return self.seconds * (self.whole - done) / done if self.work else None


@dataclass(frozen=True, slots=True)
class StudyJob(Generic[R]):
    """A run whose record is kept under ``key``. ``model``: the name of its engine; ``work``: its part of the whole."""

    key: str
    model: str
    label: str
    run: Callable[[Engine], Awaitable[R]]
    work: float = 1.0


def run_jobs(
    jobs: Sequence[StudyJob[R]],
    records: Records[R],
    load: Callable[[str], Engine],
    tell: Callable[[Progress], None],
    concurrency: int,
) -> Progress:
    """Run the jobs that have no record yet, model by model, so many at a time in the same ticks.

    A job that fails is told of in ``Progress.failed``, and tried again by whoever runs them next. ``tell`` is called
    after each; what it raises ends them all, and what is recorded stays.
    """
    todo = [job for job in jobs if job.key not in records.done]
    progress = Progress(len(jobs), len(jobs) - len(todo), whole=sum(job.work for job in todo))
    tell(progress)

    async def run_all(engine: Engine, queue: Iterator[StudyJob[R]]) -> None:
        async def work() -> None:
            for job in queue:
                progress.busy += job.work
                try:
                    record = await job.run(engine)
                except KvorumError as error:
                    progress.failed.append(f"{job.label}: {error}")
                else:
                    records.add(record)
                    progress.done += 1
                progress.busy -= job.work
                progress.work += job.work
                tell(progress)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(todo))):
                    group.create_task(work())
        except ExceptionGroup as several:  # the disk is full for one as for all
            raise several.exceptions[0] from several

    for model in dict.fromkeys(job.model for job in todo):
        asyncio.run(run_all(load(model), iter([job for job in todo if job.model == model])))
    return progress
