"""What a server changes for the whole process and in its engine while it runs; all of it is put back at the end."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvorum.api import Engine

SWITCH = 0.0005
"""Seconds after which a thread that computes in Python lets the other have its turn, so that a token is sent while the
next tick is prepared."""
CHUNK = 256
"""Tokens of a long prompt that go through in one tick, so that others wait no longer than that takes."""


@contextmanager
def serving(engine: Engine, ticked: Callable[[int, int, float], None]) -> Iterator[None]:
    """Set the process and ``engine`` up for a server; ``ticked`` hears of each tick: rows, tokens, seconds."""
    switch, chunk, listener = sys.getswitchinterval(), engine.prefill_chunk, engine.scheduler.listener
    sys.setswitchinterval(SWITCH)
    engine.prefill_chunk, engine.scheduler.listener = min(chunk, CHUNK), ticked
    frozen = gc.get_freeze_count()
    if not frozen:
        gc.freeze()  # the model's modules are not looked at again each time a run's leavings are collected
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()  # else native modules report everything that is left when the process ends
        engine.prefill_chunk, engine.scheduler.listener = chunk, listener
        sys.setswitchinterval(switch)
