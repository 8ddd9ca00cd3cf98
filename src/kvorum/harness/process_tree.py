"""Ending a process with all that it started."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def end_tree(leader: int) -> None:
    """Kill the process numbered ``leader``, started with ``start_new_session=True``, and what it started.

    On POSIX also what its ended children have started; on Windows those that can still be found as its descendants.
    """
    if sys.platform == "win32":
        import psutil

        with suppress(psutil.Error):
            process = psutil.Process(leader)
            for each in [*process.children(recursive=True), process]:
                with suppress(psutil.Error):
                    each.kill()
        return
    with suppress(ProcessLookupError, PermissionError):  # it may not lead its group yet, or be gone
        os.killpg(leader, signal.SIGKILL)
