"""A worker process ends with the one that has started it, whatever it waits for then.

vLLM closes a worker's queues when its parent is gone. A worker that waits for another rank at that moment, or is
waiting for it in its own shutdown, never looks at them, and would keep its memory.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from multiprocessing.connection import wait

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
