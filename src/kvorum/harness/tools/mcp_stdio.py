"""The wire to an MCP server that is a process here: one JSON-RPC message a line on its standard input and output.

As the SDK's own, and bounded: a line that is no message is passed over and logged, one that is too long ends the
server, and so does more than anybody could read, asked for or not. What it says on standard error is read all the time
and only its end is kept. The process is a group of its own, which ends whole.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import Process
from mcp.client._transport import TransportStreams
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from kvorum.harness.process_tree import end_tree
from kvorum.harness.tools.mcp_config import ServerConfig
from kvorum.wording import harmless

log = logging.getLogger("kvorum.tools")
MAX_LINE = 4_000_000
"""Bytes of one message; a server that writes a longer one is ended."""
TAIL = 2000
"""Bytes of its standard error that are kept, for a message when it fails."""
LINES, LINES_A_SECOND = 5_000, 200
"""Lines that a server may write at once, and that come back to it each second; each takes time to read."""
BYTES, BYTES_A_SECOND = 50_000_000, 2_000_000
"""The same of bytes, on both of its streams together."""
LOGGED = 8
"""Lines that are no messages of one server that are logged."""
GRACE = 2.0
"""Seconds that a server has to end by itself once its input is closed."""


class Tail:
    """The end of what a server said on standard error, and why it was ended, if it was.

    ``passed``: the last line of its output that was no message, and ``passed_over`` how many there were.
    """

    def __init__(self) -> None:
        self.data = self.passed = b""
        self.fault = ""
        self.passed_over = 0
        self._lines, self._bytes, self._then = float(LINES), float(BYTES), time.monotonic()

    def afford(self, lines: int, size: int) -> bool:
        """Count what it has written; False: it was too much, which is its fault from now on."""
        now = time.monotonic()
        gone, self._then = now - self._then, now
        self._lines = min(LINES, self._lines + gone * LINES_A_SECOND) - lines
        self._bytes = min(BYTES, self._bytes + gone * BYTES_A_SECOND) - size
        if self._lines < 0 or self._bytes < 0:
            much = f"{LINES:,} lines" if self._lines < 0 else f"{BYTES:,} bytes"
            self.fault = f"it wrote more than {much} at once"
        return not self.fault

    def add(self, data: bytes) -> None:
        """Keep the end of it."""
        self.data = (self.data + data)[-TAIL:]

    @property
    def text(self) -> str:
        """The fault, or the last line of it, or of the output what was no message."""
        said = (self.data.strip() or self.passed).decode("utf-8", "replace").strip()
        return self.fault or (said.splitlines()[-1].strip() if said else "")


@asynccontextmanager
async def stdio_wire(config: ServerConfig, tail: Tail) -> AsyncIterator[TransportStreams]:
    """Start the server and talk to it; it is ended, with all that it started, when the block is left.

    Raises:
        OSError: it cannot be started.
    """
    process = await anyio.open_process(
        [config.command, *config.args],
        env=get_default_environment() | dict(config.env),
        cwd=config.cwd,
        start_new_session=True,
    )
    read_in, read = anyio.create_memory_object_stream[SessionMessage | Exception](64)
    write, write_out = anyio.create_memory_object_stream[SessionMessage](64)

    async def output() -> None:
        assert process.stdout is not None
        buffer = b""
        async with read_in:
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                async for chunk in process.stdout:
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    if max(map(len, [*lines, buffer])) > MAX_LINE:
                        tail.fault = f"it wrote a message of more than {MAX_LINE:,} bytes"
                        _end(process)
                        return
                    if not tail.afford(len(lines), len(chunk)):
                        _end(process)
                        return
                    for message in _messages(lines, config.name, tail):
                        await read_in.send(message)

    async def errors() -> None:
        assert process.stderr is not None
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            async for chunk in process.stderr:
                tail.add(chunk)
                if not tail.afford(0, len(chunk)):
                    _end(process)
                    return

    async def send() -> None:
        assert process.stdin is not None
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            async for message in write_out:
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(line.encode() + b"\n")

    async with anyio.create_task_group() as tasks:
        for job in (output, errors, send):
            tasks.start_soon(job)
        try:
            yield read, write
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)
                for stream in (read, write, write_out):
                    await stream.aclose()
            tasks.cancel_scope.cancel()


def _messages(lines: Sequence[bytes], name: str, tail: Tail) -> list[SessionMessage]:
    """The messages among the lines; a banner or a line of a log is none, and is logged."""
    found = []
    for line in lines:
        try:
            found.append(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))
        except ValueError:
            if not line.strip():
                continue
            tail.passed, tail.passed_over = line[:TAIL], tail.passed_over + 1
            if tail.passed_over <= LOGGED:
                words = harmless(line[:200].decode("utf-8", "replace"))
                log.info("the MCP server %s wrote a line that is no message: %s", name, words)
    return found


async def _stop(process: Process) -> None:
    if process.stdin is not None:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
    with anyio.move_on_after(GRACE):
        await process.wait()
    _end(process)  # also what it started and left behind
    with anyio.move_on_after(GRACE):
        await process.wait()
    await process.aclose()


def _end(process: Process) -> None:
    """Kill the process and its group."""
    end_tree(process.pid)
    with suppress(ProcessLookupError):
        process.kill()
