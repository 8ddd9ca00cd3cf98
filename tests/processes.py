"""Several processes of a test that do the same at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any


def at_once(does: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Call it in as many fresh processes, each with its own arguments; all of them end, and none with an error."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=does, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
