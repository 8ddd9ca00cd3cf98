"""A study's cells on a Ray cluster: ``make test-ray``; skipped where there is no Ray. Batches are tested everywhere.

Covers: how jobs are put into batches, and the same table as on one machine though a worker is killed. Not covered:
several machines, GPUs.
"""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.errors import BadRequest, MissingExtra
from kvorum.lab.study.jobs import StudyJob
from kvorum.lab.study.ray_jobs import batches, run_batch
from kvorum.lab.study.run_cells import run_study
from studies_made import load, rows, study

NAMES = st.lists(st.sampled_from("ab"), max_size=40)


async def _never(engine: Any) -> dict[str, Any]:
    raise AssertionError(engine)


@given(models=NAMES, concurrency=st.integers(1, 9), workers=st.integers(0, 9))
def test_each_job_is_in_one_batch_of_its_model(models: list[str], concurrency: int, workers: int) -> None:
    jobs = [StudyJob(str(at), model, "", _never) for at, model in enumerate(models)]
    found = batches(jobs, concurrency, workers)
    assert sorted((job.key for part in found for job in part), key=int) == [job.key for job in jobs]
    assert all(len({job.model for job in part}) == 1 and len(part) <= concurrency for part in found)


def test_a_batch_brings_home_what_it_has_done() -> None:
    async def one(engine: Any) -> dict[str, Any]:
        return {"key": "one", "engine": engine}

    async def two(engine: Any) -> dict[str, Any]:
        raise BadRequest("not this one")

    jobs = [StudyJob("one", "m", "first", one), StudyJob("two", "m", "second", two)]
    assert run_batch(jobs, lambda name: name, 2) == ([{"key": "one", "engine": "m"}], ["second: not this one"])  # type: ignore[arg-type, return-value]


def has_ray() -> bool:
    with warnings.catch_warnings(action="ignore"):  # Ray's own
        try:
            import ray  # noqa: F401
        except ImportError:
            return False
    return True


@pytest.mark.skipif(has_ray(), reason="Ray is installed.")
def test_without_ray_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"kvorum\[ray\]"):
        run_study(study(), tmp_path, load, ray="local")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not has_ray(), reason="Ray is not installed: pip install 'kvorum[ray]', or make test-ray.")
def test_a_study_has_the_same_table_though_a_worker_is_killed(tmp_path: Path) -> None:
    asked, marker = study(concurrency=2), tmp_path / "killed"

    def once_killed(name: str) -> Any:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return load(name)

    alone, spread = tmp_path / "alone", tmp_path / "spread"
    run_study(asked, alone, load)
    progress = run_study(asked, spread, once_killed, ray="local")
    assert marker.exists()
    assert progress.failed == []
    assert progress.done == progress.total == len(asked.cells)
    assert rows(spread) == rows(alone)
