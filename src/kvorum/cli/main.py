"""The way in: parse, run the command, and turn errors into one sentence and an exit code.

Exit codes: 0 done, 1 it failed (or nobody answered, or a replay differs), 2 wrong use or input, 130 stopped by Ctrl-C
or a signal, 141 the reader of the output went away.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from kvorum.errors import BadRequest, BadTrace, KvorumError, UnknownName, UnsupportedModel
from kvorum.wording import harmless

_INPUT = (BadRequest, BadTrace, UnknownName, UnsupportedModel)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit code."""
    from kvorum.cli.parser import parse

    words = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started the command: nobody reads it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open to the end)
        elif hasattr(stream, "reconfigure"):  # a model may write what the terminal's encoding does not have
            stream.reconfigure(errors="replace")
    try:
        args = parse(words)
    except SystemExit as error:  # argparse: help or wrong use
        return error.code if isinstance(error.code, int) else 2
    if args.json and hasattr(sys.stdout, "reconfigure"):  # JSON is UTF-8, whatever the terminal's encoding is
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        home = {"pull": "models"}.get(args.command, args.command)
        code: int = getattr(import_module(f"kvorum.cli.{home}"), args.command)(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:  # it may say how to go on
        return _say(str(error) or "stopped", 130)
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # what is left in the buffer must not raise again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KvorumError, OSError) as error:
        if args.debug:
            raise
        return _say(_sentence(error), 2 if isinstance(error, _INPUT) else 1)


def _sentence(error: KvorumError | OSError) -> str:
    if isinstance(error, KvorumError):
        return "\n".join([str(error), *getattr(error, "__notes__", [])])
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _say(words: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"kvorum: {harmless(words)}", file=sys.stderr)
    return code
