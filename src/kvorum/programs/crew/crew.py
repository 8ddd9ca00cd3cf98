"""Several workers with one memory and one board, whose roles and protocol somebody has written into a YAML file.

    Writer  [ rules ][ memory ][ task ][ Writer 1 ][ Ann 1 ][ Ben 1 ][ Writer 2, own ]
    Ann     [ rules ][ memory ][ task ][ Writer 1 ][ Ann 1, own ]

Over the channel "cache" what another has said stands in a worker's view as it was written, and is not encoded again.
What is remembered, and the text of a skill, is encoded once for all who see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from kvorum.errors import BadRequest
from kvorum.harness.crew_files.reading import STOPPED, Crew, read_crew
from kvorum.harness.known_texts import KnownTexts
from kvorum.harness.model_speaker import ModelSpeaker
from kvorum.harness.skills.tools import SKILL_TOOLS
from kvorum.harness.tools.calling_speaker import CallingSpeaker
from kvorum.harness.tools.tool import Tool
from kvorum.harness.tools.toolbox import Toolbox
from kvorum.jsontypes import Json
from kvorum.programs.crew.shared import SharedTexts
from kvorum.programs.crew.table import Table
from kvorum.runs.annotations import Help, NonNegativeInt, PositiveInt
from kvorum.runs.parameters import Value
from kvorum.runs.program import program
from kvorum.runs.run import Run
from kvorum.wording import unknown

RECALLED = 8
"""The most entries of the memory that all see."""


def names_of(workers: int | None, *, crew: str, **others: Value) -> list[str]:
    """The workers' names, as the crew file has them."""
    return list(read_crew(crew).workers)


def can_work(workers: int, *, crew: str, **others: Value) -> None:
    """Raises BadRequest where the file is wrong, or the workers are not those that it names."""
    found = read_crew(crew)
    if workers != len(found.workers):
        raise BadRequest(f"{workers} workers are not possible: the crew file names {', '.join(found.workers)}.")


@program(
    "crew",
    "workers with roles, one memory and one board, by the protocol of a YAML file",
    exchange="board",
    names=names_of,
    together=can_work,
)
async def crew(
    run: Run,
    *,
    crew: str = "review",
    tools: Annotated[Sequence[Callable[..., Json] | Tool | str], Help(local=True)] = (),
    mcp: Annotated[str, Help(local=True)] = "",
    allow: Annotated[Sequence[str], Help(local=True)] = (),
    memory: Annotated[str, Help(local=True)] = "",
    skills: Annotated[Sequence[str], Help(local=True)] = (),
    scripts: Annotated[Sequence[str], Help(local=True)] = (),
    tokens: PositiveInt = 256,
    calls: NonNegativeInt = 4,
    retries: NonNegativeInt = 1,
) -> str | None:
    """Go through the steps of the file until one ends it. The answer is the field that the file names.

    The trace's notes say who said what in which step ("post"), what a vote brought ("vote"), how a step came out
    ("step"), and how it ended ("outcome").

    Args:
        crew: The text of a crew file, or the name of a crew that comes with kvorum: review, estimate, notes.
        tools: Typed functions, tools, or places of such: FILE.py:NAME, package.module:NAME.
        mcp: A JSON file with mcpServers, whose tools the file may name too.
        allow: What is refused by default and may be used: names of servers or tools that reach the network.
        memory: The namespace of the memory that all share; needed where the file says who writes it.
        skills: Folders of skills, of which the file says who may use which.
        scripts: Names of skills whose scripts may be run, each time behind a person's word.
        tokens: The most tokens of a turn.
        calls: How many calls a worker may make before it says what it is asked for.
        retries: How often a worker is asked again whose words could not be read.
    """
    found = read_crew(crew)
    names = [worker.name for worker in run.workers]
    if names != list(found.workers):
        raise BadRequest(f"The workers are {', '.join(names)}; the crew file names {', '.join(found.workers)}.")
    if found.memory and not memory:
        raise BadRequest("This crew has a memory: name the namespace with the parameter memory (--memory).")
    writes = found.memory or "read-only"
    if not skills and (wanting := [name for name, worker in found.workers.items() if worker.skills]):
        raise BadRequest(f"{wanting[0]} is to have skills: name their folder with the parameter skills (--skills).")
    known = await KnownTexts.open(
        run, namespace=memory, who_writes=writes, recall=RECALLED, query=run.task.prompt, folders=skills
    )
    shared = SharedTexts(run, {name: known.limited(found.workers[name].skills) for name in names})
    for name, texts in shared.known.items():
        await texts.begin_with(found.workers[name].use, decide_one=found.workers[name].decides)
    async with Toolbox(tools, mcp, allow) as box:
        own = await box.open(run)
        benches = {name: _bench(name, found, shared.known[name].tools(name, scripts), own) for name in names}
        model = ModelSpeaker(run, "cache" if found.channel == "cache" else "text")
        speaker = CallingSpeaker(run, model, benches, calls=calls, more=shared.more)
        table = Table(run, found, speaker, await shared.before(), tokens, retries)
        run.note("crew", steps=list(found.steps), workers=names, channel=found.channel)
        played = await table.play()
    run.note("outcome", outcome=played.end, steps=[list(step) for step in played.steps])
    if played.end == STOPPED:
        run.outcome = "cut"
    return table.answer()


def _bench(name: str, found: Crew, known: Sequence[Tool], own: Sequence[Tool]) -> list[Tool]:
    """The tools that a worker may call: those that it names, and those of its skills. Raises BadRequest: unknown."""
    by_name = {tool.name: tool for tool in [*known, *own]}
    for wanted in found.workers[name].tools:
        if wanted not in by_name:
            raise BadRequest(f"{name} is to have a tool. {unknown('tool', wanted, by_name)}")
    named = [by_name[wanted] for wanted in found.workers[name].tools]
    return named + [tool for tool in known if tool.name in SKILL_TOOLS and tool not in named]
