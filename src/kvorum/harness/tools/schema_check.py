"""Whether a value fits a schema that somebody else wrote, told within a time, whatever the schema does.

Plain schemas, as typed functions and most servers have them, cost no more than schema and value are long, and are
checked here. One with patterns, references or other keywords is checked in a process of its own
(``schema_process``), which is kept for the next and ended when its time is over.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kvorum.harness.tools import schema_process
from kvorum.jsontypes import Json, JsonObject

START = 60.0
"""Seconds that the process may take to be there."""
KEPT = 2
"""So many processes wait for the next value."""
_WORDS = frozenset(("type", "required", "enum", "const", "title", "description", "default", "examples", "$schema"))
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength")
_COUNTS = frozenset((*_BOUNDS, "minItems", "maxItems", "minProperties", "maxProperties"))
_idle: list[_Process] = []
_lock = threading.Lock()


def misfit(schema: JsonObject, value: Json, seconds: float) -> str:
    """Why a value does not fit a schema, or why that cannot be said; "" where it fits. Blocks its thread.

    Raises:
        TimeoutError: it was not known after ``seconds``, beside the time that a first process takes to be there.
    """
    try:
        if is_plain(schema):
            return schema_process.wrong_with(schema, value)
        line = json.dumps({"schema": schema, "value": value, "seconds": seconds}).encode() + b"\n"
    except RecursionError:
        return "the tool's schema, or what was given, nests too deep"
    try:
        process = _taken() or _Process()
        answer = process.ask(line, seconds)
    except TimeoutError:
        raise
    except OSError as error:
        return f"it could not be checked: {error.strerror or error}"
    with _lock:
        if keep := len(_idle) < KEPT:
            _idle.append(process)
    if not keep:
        process.end()
    return answer


def _taken() -> _Process | None:
    """A process that waits; None: there is none that lives."""
    with _lock:
        while _idle:
            process = _idle.pop()
            if process.lives:
                return process
            process.end()
    return None


def is_plain(schema: Json) -> bool:
    """Whether a schema has nothing but types, members, items, choices and bounds."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, Mapping) or not isinstance(schema.get("$schema", ""), str):
        return False
    for keyword, given in schema.items():
        if keyword in _WORDS or keyword in _COUNTS:
            continue
        if keyword == "properties" and isinstance(given, Mapping):
            below = list(given.values())
        elif keyword in ("items", "additionalProperties"):
            below = [given]
        elif keyword == "anyOf" and isinstance(given, list):
            below = given
        else:
            return False
        try:
            if not all(map(is_plain, below)):
                return False
        except RecursionError:  # what nests so deep is not cheap
            return False
    return True


class _Process:
    """A process that checks. Raises OSError: it cannot be started."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(schema_process.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if not self._read(START):
            self.end()
            raise OSError("the process that checks did not start")

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def ask(self, line: bytes, seconds: float) -> str:
        """What is wrong; "" for nothing. Raises TimeoutError; the process is over then."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it is over, which the reading tells
            self._process.stdin.write(line)
            self._process.stdin.flush()
        said = self._read(seconds + 1.0)
        if said.endswith(b"\n"):  # else it was cut off in the middle
            return str(json.loads(said)["wrong"])
        if self._ended_late():
            raise TimeoutError
        raise OSError("the process that checks broke off")

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _read(self, seconds: float) -> bytes:
        """A line; b"" where there is none in time, and the process is ended."""
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            return self._process.stdout.readline()
        finally:
            timer.cancel()

    def _ended_late(self) -> bool:
        """Whether the process ended by its own alarm or because it was ended here."""
        code = self._process.wait()
        self.end()
        ours = (1,) if sys.platform == "win32" else (-signal.SIGALRM, -signal.SIGKILL)
        return code in ours


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they answer the process that started them
