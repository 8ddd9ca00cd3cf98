"""The command `kvorum`.

`parser` reads the command line, `main` turns errors into one sentence and an exit code. Each command is in the module
of its name (`pull` in `models`, `completion` in `parser`); `display/` holds the ways to show a run. Nothing here
imports torch before a model or a program is really needed.
"""

from kvorum.cli.main import main

__all__ = ["main"]
