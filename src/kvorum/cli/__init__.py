"""The command `kvorum`: solve, models, pull, programs, replay.

`parser` reads the command line, `main` turns errors into one sentence and an exit code; the other modules hold one
command or one way to show a run each. Nothing here imports torch before a model is really needed.
"""

from kvorum.cli.main import main

__all__ = ["main"]
