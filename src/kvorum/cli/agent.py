"""`kvorum agent`: one worker with tools, of one's own and of MCP servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.planned_run import perform
from kvorum.cli.solve import NewRun
from kvorum.errors import BadRequest

if TYPE_CHECKING:
    from argparse import Namespace


def agent(args: Namespace) -> int:
    """Run the agent on a task. Returns the exit code: 1 where it gave no answer."""
    args.program, args.workers = "agent", None
    args.lines = True  # a question to the person stands between the lines
    return perform(args, AgentRun(args))


class AgentRun(NewRun):
    """The run that `kvorum agent` was asked for; a `planned_run.PlannedRun`."""

    def check(self) -> None:
        """Also that the tools are there and the servers may be used, before the model is loaded."""
        super().check()
        from kvorum.harness.tools.toolbox import tools_of

        args = self.args
        for place in args.tools:
            tools_of(place)
        if args.mcp:
            if not Path(args.mcp).is_file():
                raise BadRequest(f"There is no file {args.mcp} with MCP servers.")
            from kvorum.harness.tools.mcp import Servers, read_servers

            Servers(read_servers(args.mcp), args.allow, seconds=1.0, chars=1).close()
        given = {"tools": args.tools, "mcp": args.mcp, "allow": args.allow, "calls": args.calls}
        self.params |= given
        self.program.check(self.params, workers=1)
