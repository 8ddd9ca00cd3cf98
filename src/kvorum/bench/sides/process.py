"""A side in a process of its own, as the bench holds it: requests with a time limit, one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import TypeVar

from kvorum.bench.sides.messages import Loaded
from kvorum.errors import BenchError
from kvorum.jsontypes import Json

Reply = TypeVar("Reply")

LOAD_SECONDS = 600.0
"""A first load converts the model."""


class Process:
    """Runs `kvorum.bench.sides.server` with the arguments of `registry.make`.

    ``memory``: what it held before and after it loaded the engine and the model. Every method raises `BenchError`
    where the side refuses, takes longer than its limit or dies; after the last two it is gone.
    """

    def __init__(self, side: str, **arguments: Json) -> None:
        self.side = side
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - what the engine prints; shown if it dies
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kvorum.bench.sides.server", json.dumps({"side": side} | arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
        )
        try:
            self.memory = self._answer(Loaded, LOAD_SECONDS)
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, reply: type[Reply], verb: str, seconds: float = 600.0, /, **arguments: Json) -> Reply:
        """Do ``verb`` of `server.Server`, which answers with ``reply``, within ``seconds``."""
        line = json.dumps({"verb": verb} | arguments) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
        except BrokenPipeError as error:
            raise self._died() from error
        return self._answer(reply, seconds)

    def end(self) -> None:
        """End the process, with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def _answer(self, reply: type[Reply], seconds: float) -> Reply:
        assert self._process.stdout is not None
        place, until = self._process.stdout.fileno(), time.monotonic() + seconds
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([place], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self._process.kill()
                self._process.wait()
                raise BenchError(f"it took longer than {seconds:.0f} s")
            piece = os.read(place, 1 << 20)
            if not piece:
                raise self._died()
            text += piece
        answer = json.loads(text)
        if "error" in answer:
            raise BenchError(answer["error"].rstrip("."))
        return reply(**answer)

    def _died(self) -> BenchError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        why = lines[-1][:200] if lines else f"signal {-code}" if code < 0 else f"exit code {code}"
        return BenchError(f"its process ended: {why}")
