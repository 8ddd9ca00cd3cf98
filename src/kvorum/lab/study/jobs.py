"""Jobs: runs to be recorded, several at a time, and how far they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic

from kvorum.errors import KvorumError
from kvorum.store.records import R, Records


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
        """Since this process began."""
        return time.perf_counter() - self.started

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at the pace so far; what is under way counts as half done."""
        done = self.work + self.busy / 2
        return self.seconds * (self.whole - done) / done if self.work else None


@dataclass(frozen=True, slots=True)
class Job(Generic[R]):
    """A run to be recorded. ``work``: how much of the whole it is."""

    run: Callable[[], Awaitable[R]]
    label: str
    work: float = 1.0


async def run_jobs(
    jobs: Sequence[Job[R]],
    records: Records[R],
    progress: Progress,
    tell: Callable[[Progress], None],
    concurrency: int,
) -> None:
    """Run all ``jobs``, so many at a time. One that fails is told of, and tried again by whoever runs them next."""
    queue = iter(jobs)

    async def work() -> None:
        for job in queue:
            progress.busy += job.work
            try:
                record = await job.run()
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
            for _ in range(min(concurrency, len(jobs))):
                group.create_task(work())
    except ExceptionGroup as several:  # the disk is full for one as for all
        raise several.exceptions[0] from several
