"""MCP servers as tools: started, watched and stopped here, with limits on all that they say.

The official SDK speaks with them, in a thread of its own with an event loop of its own, so that a server that hangs
holds up nothing but its call. What a server says of its tools is not believed further than it goes: descriptions are
cut, schemas beyond the limits of grammars are refused, names are made fit and told apart, lists that never end are
ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import AsyncExitStack, suppress
from hashlib import sha256
from typing import TypeVar

from kvorum.errors import BadRequest, KvorumError
from kvorum.harness.tools.call import Outcome
from kvorum.harness.tools.mcp_config import ServerConfig, read_servers
from kvorum.harness.tools.tool import fit_name, tool_from_schema
from kvorum.jsontypes import Json, JsonObject
from kvorum.wording import harmless

try:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp_types import CallToolResult, TextContent
    from mcp_types import Tool as ServerTool

    from kvorum.harness.tools.mcp_stdio import Tail, log, stdio_wire
except ImportError as error:
    raise BadRequest("MCP servers need the package mcp: pip install 'kvorum[mcp]'.") from error

__all__ = ["Servers", "read_servers"]

MAX_TOOLS = 256
"""Tools of one server that are taken."""
MAX_PAGES = 32
"""Pages of a list of tools that are read."""
T = TypeVar("T")


class Servers:
    """The servers of one run.

    Args:
        configs: which there are. allow: names of servers that are refused by default and may be used.
        seconds: the most for a start or a call. chars: the most characters of a result that are read.
    """

    def __init__(
        self, configs: Sequence[ServerConfig], allow: Sequence[str] = (), *, seconds: float, chars: int
    ) -> None:
        for config in configs:
            if config.refusal and config.name not in allow:
                raise BadRequest(
                    f"The server {config.name!r} is refused, for {config.refusal}; allow it by name if you trust it "
                    f"with what the model says (--allow {config.name})."
                )
        self._configs = {config.name: config for config in configs}
        self._seconds, self._chars = seconds, chars
        self._running: dict[str, _Running] = {}
        self._made: list[_Running] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kvorum-mcp", daemon=True)
        self._thread.start()

    async def listed(self, taken: set[str]) -> list[dict[str, Json]]:
        """Start all servers and tell their tools, each under a name that is none of ``taken`` nor another's.

        Raises:
            BadRequest: a server does not start, or does not say what it has.
        """
        found: list[tuple[ServerConfig, ServerTool]] = []
        for config in self._configs.values():
            found += [(config, one) for one in await asyncio.to_thread(self._tools, config)]
        plain = [fit_name(one.name) for _, one in found]
        told: list[dict[str, Json]] = []
        names = set(taken)
        for (config, one), name in zip(found, plain, strict=True):
            if name in taken or plain.count(name) > 1:
                name = fit_name(f"{config.name}_{one.name}")
            if name in names:
                name = fit_name(f"{name}_{sha256(one.name.encode()).hexdigest()[:8]}")
            described = _told(config, one, name)
            if described is not None and name not in names:
                names.add(name)
                told.append(described)
        return told

    def call(self, server: str, original: str, given: Mapping[str, Json]) -> Outcome:
        """Call a tool of a server by the name that the server has for it. Never raises for what a server does.

        A server that has ended is started again for the call; one that has forgotten the session gets a new one and the
        call once more, for it has refused it unread.
        """
        try:
            return self._call(self._config(server), original, given)
        except (TooLate, TimeoutError):
            return Outcome("timeout", f"error: no result within {self._seconds:g} seconds")
        except KvorumError as error:
            return Outcome("error", f"error: {error}")

    def close(self) -> None:
        """Stop all servers, and the thread."""
        with suppress(Exception):
            self._await(self._stop_all(), 10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()

    def _config(self, server: str) -> ServerConfig:
        if server not in self._configs:
            raise BadRequest(f"There is no server {server!r} any more.")
        return self._configs[server]

    def _call(self, config: ServerConfig, original: str, given: Mapping[str, Json]) -> Outcome:
        for again in (False, True):
            running = self._started(config)
            try:
                result = self._await(running.client.call_tool(original, dict(given)), self._seconds)
            except (TooLate, TimeoutError):
                raise
            except Exception as error:
                why = running.tail.text or str(error) or type(error).__name__
                self._forget(config)
                if "Session terminated" in str(error) and not again:
                    continue
                return Outcome("error", f"error: {config.name}: {harmless(why)[:500]}")
            return Outcome("error" if result.is_error else "ok", _text(result, self._chars))
        raise AssertionError

    def _tools(self, config: ServerConfig) -> list[ServerTool]:
        try:
            return self._await(_list_tools(self._started(config).client, config.name), self._seconds)
        except (TooLate, TimeoutError):
            raise BadRequest(
                f"The server {config.name!r} did not say within {self._seconds:g} seconds what tools it has."
            ) from None
        except BadRequest:
            raise
        except Exception as error:
            raise BadRequest(f"The server {config.name!r} does not say what tools it has: {error}.") from error

    def _started(self, config: ServerConfig) -> _Running:
        with self._lock:
            running = self._running.get(config.name)
            if running is None or running.over:
                running = _Running(config)
                self._made = [*(one for one in self._made if not one.over), running]
                try:
                    self._await(running.start(), self._seconds)
                except BaseException as error:
                    self._loop.call_soon_threadsafe(running.stop)
                    if not isinstance(error, Exception):
                        raise
                    late = isinstance(error, TooLate | TimeoutError)
                    why = running.tail.text or (f"nothing within {self._seconds:g} seconds" if late else _first(error))
                    raise BadRequest(f"The server {config.name!r} does not start: {harmless(why)[:500]}.") from error
                self._running[config.name] = running
            return running

    def _forget(self, config: ServerConfig) -> None:
        with self._lock:
            running = self._running.pop(config.name, None)
        if running is not None:
            self._loop.call_soon_threadsafe(running.stop)

    def _await(self, work: Coroutine[None, None, T], seconds: float) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except (TooLate, TimeoutError):
            future.cancel()
            raise

    async def _stop_all(self) -> None:
        tasks = [running.task for running in self._made if running.task is not None]
        for running in self._made:
            running.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=8.0)


class _Running:
    """A server that runs: one task enters and leaves its connection, for that is what its scopes want."""

    def __init__(self, config: ServerConfig) -> None:
        self.config, self.tail = config, Tail()
        self.client: Client
        self.task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.task is None or self.task.done()

    async def start(self) -> None:
        """Start it and greet it. Raises what goes wrong."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._live(ready))
        await ready

    def stop(self) -> None:
        """Let it end; on the loop's thread."""
        if self.task is not None and not self._stop.is_set() and not hasattr(self, "client"):
            self.task.cancel()  # once: a second time would cut off the ending of its process
        self._stop.set()

    async def _live(self, ready: asyncio.Future[None]) -> None:
        try:
            async with AsyncExitStack() as stack:
                if self.config.url:
                    http = httpx2.AsyncClient(headers=dict(self.config.headers), follow_redirects=False)
                    await stack.enter_async_context(http)
                    wire = streamable_http_client(self.config.url, http_client=http)
                else:
                    wire = stdio_wire(self.config, self.tail)
                self.client = await stack.enter_async_context(Client(wire))
                if not ready.done():
                    ready.set_result(None)
                await self._stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else RuntimeError("it was stopped"))


async def _list_tools(client: Client, name: str) -> list[ServerTool]:
    """All tools of a server, each once; a list that does not end is ended, with a warning."""
    found: dict[str, ServerTool] = {}
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for one in page.tools:
            found.setdefault(one.name, one)
        cursor = page.next_cursor
        if not cursor or cursor in seen or len(found) >= MAX_TOOLS:
            break
        seen.add(cursor)
    if len(found) > MAX_TOOLS or (cursor and len(found) == MAX_TOOLS):
        log.warning("the MCP server %s has more than %d tools; the first ones are taken", name, MAX_TOOLS)
    elif cursor:
        log.warning("the list of tools of the MCP server %s does not end; %d are taken", name, len(found))
    return list(found.values())[:MAX_TOOLS]


def _told(config: ServerConfig, one: ServerTool, name: str) -> dict[str, Json] | None:
    """What is kept of a tool; None where its schema is beyond the limits."""
    hints = one.annotations
    schema: JsonObject = one.input_schema or {}
    try:
        made = tool_from_schema(name, harmless(one.description or ""), schema)
    except BadRequest:
        return None
    return {
        "server": config.name,
        "original": one.name,
        "name": made.name,
        "description": made.description,
        "parameters": made.parameters,
        "repeatable": bool(hints and (hints.read_only_hint or hints.idempotent_hint)),
        "approval": config.approve,
    }


def _text(result: CallToolResult, chars: int) -> str:
    """The text of a result; what is no text is named. A little more than ``chars``, so that the cut is told."""
    parts: list[str] = []
    room = chars + 1
    for one in result.content:
        words = one.text if isinstance(one, TextContent) else f"({one.type}, not shown)"
        parts.append(words[:room])
        room -= len(words) + 1
        if room <= 0:
            break
    if not parts and result.structured_content is not None:
        parts = [str(result.structured_content)[: chars + 1]]
    return "\n".join(parts)


def _first(error: BaseException) -> str:
    """The first error of a group, as words."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return str(error) or type(error).__name__
