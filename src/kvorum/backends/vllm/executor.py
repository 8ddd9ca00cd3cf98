"""vLLM's executor beside the calls to it: how it starts among other nodes, how its answers are awaited, how it ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.v1.executor.abstract import Executor

_GRACE = "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS"

LOOK = 0.2
"""Seconds between looks at whether the workers live, while one of their answers is awaited."""


def sleep_until_answered(executor: Executor) -> None:
    """Sleep while workers compute, until one says that its answer is there.

    vLLM's readers look again and again for a second before they sleep. Where models are on GPUs that is the fastest;
    where they are on processors it takes one of these from them: a twentieth of a tick's time on two.
    """
    for answers in getattr(executor, "response_mqs", None) or ():
        condition = getattr(answers, "_spin_condition", None)  # there is none for a worker of another node
        if condition is not None:
            condition.busy_loop_s = 0.0


def shut_down(executor: Executor) -> None:
    """End the processes of an executor."""
    before = os.environ.get(_GRACE)
    os.environ[_GRACE] = "0"  # they do nothing that could be waited for, and do not end by themselves
    try:
        executor.shutdown()
        _give_back(executor)
    finally:
        os.environ.pop(_GRACE)
        if before is not None:
            os.environ[_GRACE] = before


def _give_back(executor: Executor) -> None:
    """Ray counts an engine's share of the cluster as taken until somebody gives it back; vLLM does not."""
    group = executor.parallel_config.placement_group
    if group is None:
        return
    import ray
    from ray.util import get_current_placement_group, remove_placement_group

    if ray.is_initialized() and get_current_placement_group() is None:  # else it is that of who called
        remove_placement_group(group)


@contextmanager
def ended_if(lost: Callable[[], str | None] | None) -> Iterator[list[str]]:
    """While processes start and wait for those of other nodes: end them where these are ``lost``, and say why."""
    why: list[str] = []
    if lost is None:
        yield why
        return
    done, before = threading.Event(), set(multiprocessing.active_children())

    def watch() -> None:
        while not done.wait(LOOK):
            if (reason := lost()) is not None:
                why.append(reason)
                for process in set(multiprocessing.active_children()) - before:
                    process.kill()
                return

    thread = threading.Thread(target=watch, name="kvorum-start", daemon=True)
    thread.start()
    try:
        yield why
    finally:
        done.set()
        thread.join()
