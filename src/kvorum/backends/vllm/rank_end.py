"""A worker process ends with the one that has started it, whatever it waits for then, and leaves nothing behind.

vLLM closes a worker's queues when its parent is gone. A worker that waits for another rank at that moment, or is
waiting for it in its own shutdown, never looks at them, and would keep its memory. On CPUs ranks of a machine share
memory by name, which vLLM gives back only where each ends in order.
"""

from __future__ import annotations

import glob
import multiprocessing
import os
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path

_GRACE = 3.0
"""Seconds in which a worker may end by itself."""


def end_with_parent() -> None:
    """Watch the parent from now on, where this is a worker process of vLLM's. Ray ends its actors itself."""
    parent = multiprocessing.parent_process()
    if parent is None or not multiprocessing.current_process().name.startswith("VllmWorker"):
        return

    def watch() -> None:
        wait([parent.sentinel])
        time.sleep(_GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="kvorum-parent", daemon=True).start()


def unname_shared_memory() -> None:
    """Take its names from the memory that ranks share on CPUs, once all have it: it goes with the last of them."""
    ident = os.environ.get("VLLM_DIST_IDENT")  # vLLM's CPU worker sets it
    if ident:
        for path in Path("/dev/shm").glob(f"{glob.escape(ident)}-*-cpushm_*"):
            path.unlink(missing_ok=True)
