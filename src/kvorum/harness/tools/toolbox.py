"""The tools of one run: typed functions, places of such, and the tools of MCP servers, behind one list.

What is offered is recorded in the trace, so that a replay starts no server: its calls are in the trace too. A run that
goes on from its trace starts the servers when it first calls one of their tools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from kvorum.errors import BadRequest
from kvorum.harness.own_modules import own_module
from kvorum.harness.tools.call import Outcome
from kvorum.harness.tools.tool import Tool, tool, tool_from_schema
from kvorum.jsontypes import Json, JsonObject
from kvorum.runs.run import Run
from kvorum.sampling.grammar import Grammar
from kvorum.wording import unknown

if TYPE_CHECKING:
    from kvorum.harness.tools.mcp import Servers


class Toolbox:
    """Opens the tools of a run, and stops the servers behind them at its end.

    Args:
        tools: typed functions, tools, or places of such: ``FILE.py:NAME``, ``package.module:NAME``; a NAME may also be
            a list of them.
        mcp: a JSON file with ``mcpServers``; "": none. allow: see ``harness.tools.mcp``.
        seconds: the most for a server to start or to answer. chars: the most characters of a result.
    """

    def __init__(
        self,
        tools: Sequence[Callable[..., Json] | Tool | str],
        mcp: str = "",
        allow: Sequence[str] = (),
        *,
        seconds: float = 60.0,
        chars: int = 8000,
    ) -> None:
        self._tools, self._mcp, self._allow = tools, mcp, allow
        self._seconds, self._chars = seconds, chars
        self._servers: Servers | None = None

    async def __aenter__(self) -> Toolbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._servers is not None:
            self._servers.close()

    async def open(self, run: Run) -> list[Tool]:
        """All tools, each under a name of its own, with schemas that grammars can hold.

        Raises:
            BadRequest: two have one name, a place holds no tool, or a server cannot be used.
            ProgramError: a file or module cannot be imported.
        """
        found = [one for given in self._tools for one in tools_of(given)]
        if self._mcp:
            found += await self._of_servers(run, {one.name for one in found})
        names = [one.name for one in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise BadRequest(f"Two tools are named {twice}; give one of them another name.")
        return [enforceable(run, one) for one in found]

    async def _of_servers(self, run: Run, taken: set[str]) -> list[Tool]:
        from kvorum.harness.tools.mcp import Servers, read_servers

        servers = self._servers = Servers(
            read_servers(self._mcp), self._allow, seconds=self._seconds, chars=self._chars
        )

        async def ask() -> list[Json]:
            return list(await servers.listed(taken))

        offered = await run.outside("mcp tools", ask)
        return [self._remote(servers, one) for one in offered if isinstance(one, dict)]

    def _remote(self, servers: Servers, one: JsonObject) -> Tool:
        server, original = str(one["server"]), str(one["original"])

        def call(**given: Json) -> Outcome:
            return servers.call(server, original, given)

        parameters = one["parameters"]
        return tool_from_schema(
            str(one["name"]),
            str(one["description"]),
            parameters if isinstance(parameters, dict) else {},
            call,
            repeatable=bool(one["repeatable"]),
            approval=bool(one["approval"]),
        )


def tools_of(given: Callable[..., Json] | Tool | str) -> list[Tool]:
    """The tool that is given, or those at a place.

    Raises:
        BadRequest: there is none. ProgramError: the file or module cannot be imported.
    """
    if isinstance(given, Tool):
        return [given]
    if not isinstance(given, str):
        return [tool(given)]
    place, _, name = given.rpartition(":")
    if not place or not name:
        raise BadRequest(f"{given!r} is no place of a tool; write FILE.py:NAME or package.module:NAME.")
    there = vars(own_module(place))
    if name not in there:
        raise BadRequest(unknown("tool", name, [key for key in there if not key.startswith("_")], owner=place))
    value = there[name]
    several = value if isinstance(value, list | tuple) else [value]
    if not several or not all(isinstance(one, Tool) or callable(one) for one in several):
        raise BadRequest(f"{name} in {place} is no tool: neither a typed function, nor a Tool, nor a list of them.")
    return [one if isinstance(one, Tool) else tool(one) for one in several]


def enforceable(run: Run, one: Tool) -> Tool:
    """The tool with a schema that the engine's grammars can hold: its own or, where they cannot, that of any object,
    which the trace tells."""
    try:
        run.engine.grammars.matcher(Grammar.json(one.parameters))
    except BadRequest as error:
        run.note("tool_schema", tool=one.name, reason=str(error))
        return replace(one, parameters={"type": "object"})
    return one
