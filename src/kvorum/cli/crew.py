"""`kvorum crew`: several workers by a file that says who they are, what they may say, and in which steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.planned_run import perform
from kvorum.cli.solve import NewRun
from kvorum.errors import BadRequest, UnknownName
from kvorum.wording import plural

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.harness.crew_files.reading import Crew


def crew(args: Namespace) -> int:
    """Run the crew on a task, or check its file. Returns the exit code: 1 where there is no answer."""
    text, found = read_file(args.crew)
    if args.check:
        print(told(found))
        return 0
    args.program, args.workers = "crew", None
    args.lines |= asks_a_person(args)  # the question stands between the lines
    return perform(args, CrewRun(args, text, found))


def asks_a_person(args: Namespace) -> bool:
    """Whether some call of the run may want a person's word.

    Raises:
        BadRequest: a place holds no tool, or the file of servers cannot be read.
    """
    from kvorum.harness.tools.mcp_config import read_servers
    from kvorum.harness.tools.toolbox import tools_of

    if args.scripts or any(one.approval for place in args.tools for one in tools_of(place)):
        return True
    return bool(args.mcp) and any(server.approve for server in read_servers(args.mcp))


def read_file(place: str) -> tuple[str, Crew]:
    """The text of a crew file, or of a crew that ships, and what it says.

    Raises:
        BadRequest: it cannot be read, or is wrong; the message has file and line. UnknownName: no such crew ships.
    """
    from kvorum.harness.crew_files.reading import SHIPPED, read_crew, shipped

    path = Path(place)
    if place in SHIPPED and not path.is_file():
        text = shipped(place)
    else:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise BadRequest(f"{place} is not UTF-8 text.") from None
        except OSError as error:
            there = f"; crews that ship: {', '.join(SHIPPED)}" if not path.exists() else ""
            raise BadRequest(f"{place} cannot be read: {error.strerror}{there}.") from None
    try:
        return text, read_crew(text if "\n" in text else f"{text}\n:")
    except (BadRequest, UnknownName) as error:
        raise BadRequest(f"{place}, {error}") from None


def told(found: Crew) -> str:
    """What a crew file says, in lines."""
    lines = [found.about] if found.about else []
    lines += [f"{name}: {worker.role}" for name, worker in found.workers.items()]
    for name, step in found.steps.items():
        then = ", ".join(f"{outcome} -> {target}" for outcome, target in step.then.items()) or "the end"
        vote = f", a vote on {step.vote} ({step.rule})" if step.vote else ""
        lines.append(f"{name}: {', '.join(step.who)} say {step.form}{vote}; {then}")
    where, field, how = found.answer
    return "\n".join([*lines, f"at most {plural(found.protocol.most, 'step')}; answer: {where}.{field}, {how}"])


class CrewRun(NewRun):
    """The run that `kvorum crew` was asked for; a `planned_run.PlannedRun`."""

    def __init__(self, args: Namespace, text: str, found: Crew) -> None:
        super().__init__(args)
        self.text, self.found = text, found

    def check(self) -> None:
        """Also that the tools are there and the memory can be, before the model is loaded."""
        super().check()
        from kvorum.harness.tools.toolbox import tools_of
        from kvorum.store.memory.entries import check_namespace

        args = self.args
        for place in args.tools:
            tools_of(place)
        if args.skills:
            from kvorum.harness.skills.find import find_skills

            skills = find_skills([Path(folder) for folder in args.skills])
            for name in [*args.scripts, *(name for worker in self.found.workers.values() for name in worker.skills)]:
                skills.get(name)
        memory = args.memory or (Path(args.crew).stem if self.found.memory else "")
        if memory:
            from kvorum.store.kept_blocks import KeptBlocks

            self.kept = KeptBlocks()
            check_namespace(memory)
        self.params |= {"crew": self.text, "tools": args.tools, "mcp": args.mcp, "allow": args.allow, "memory": memory}
        self.params |= {"skills": args.skills, "scripts": args.scripts}
        self.program.check(self.params, workers=len(self.found.workers))
