"""`kvorum agent`: one worker with tools, of one's own and of MCP servers, with a memory and skills."""

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
        if args.skills:
            from kvorum.harness.skills.find import find_skills

            skills = find_skills([Path(folder) for folder in args.skills])
            for name in [*args.scripts, *args.use]:
                skills.get(name)
        elif args.use or args.decide:
            raise BadRequest("There are no skills to switch on: name their folder (--skills).")
        if args.memory or args.skills:
            from kvorum.store.kept_blocks import KeptBlocks

            self.kept = KeptBlocks()
        names = ("tools", "mcp", "allow", "calls", "memory", "skills", "scripts", "use", "decide")
        self.params |= {name: getattr(args, name) for name in names}
        self.program.check(self.params, workers=1)
