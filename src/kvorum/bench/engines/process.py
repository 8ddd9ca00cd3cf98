"""A side in a process of its own, as the bench holds it: requests with a time limit, one at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from kvorum.bench.engines.server import Server, serve
from kvorum.bench.engines.side import SideOptions
from kvorum.bench.result import Loaded
from kvorum.errors import BenchError
from kvorum.harness.process_tree import end_tree

Arguments = ParamSpec("Arguments")
Reply = TypeVar("Reply")

LOAD_SECONDS = 600.0
"""A first load converts the model."""


class Process(contextlib.AbstractContextManager["Process"]):
    """Runs a `Server` of the side.

    ``memory``: what it held before and after it loaded the engine and the model. Every method raises `BenchError`
    where the side refuses, takes longer than its limit or dies; after the last two it is gone.
    """

    def __init__(self, options: SideOptions) -> None:
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115 - what the engine prints; shown if it dies
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, self._log.name, options))
        self._process.start()
        theirs.close()
        try:
            self.memory = self._reply(Loaded, LOAD_SECONDS)
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.is_alive()

    def ask(
        self,
        verb: Callable[Concatenate[Server, Arguments], Reply],
        seconds: float = 600.0,
        /,
        *_: Arguments.args,
        **arguments: Arguments.kwargs,
    ) -> Reply:
        """What ``verb``, a method of `Server`, returns there within ``seconds``; its arguments are named."""
        try:
            self._pipe.send((verb, arguments))
        except OSError as error:
            raise self._died() from error
        return self._reply(verb, seconds)

    def end(self) -> None:
        """End the process, with all that it started."""
        if self._process.ident is not None:
            end_tree(self._process.ident)
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._log.close()

    def __exit__(self, *_: object) -> None:
        self.end()

    def _reply(self, made_by: Callable[..., Reply], seconds: float) -> Reply:
        if not self._pipe.poll(seconds):
            self._process.kill()
            self._process.join()
            raise BenchError(f"it took longer than {seconds:.0f} s")
        try:
            reply: Reply | BenchError = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(reply, BenchError):
            raise reply
        return reply

    def _died(self) -> BenchError:
        self._process.join()
        code = self._process.exitcode or 0
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        why = lines[-1][:200] if lines else f"signal {-code}" if code < 0 else f"exit code {code}"
        return BenchError(f"its process ended: {why}")
