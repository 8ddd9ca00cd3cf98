"""One worker that thinks, calls tools and reads their results, until it answers.

How it is told of tools and how its calls are read is the model's own way where its chat template has one
(``harness.tools.call_form``). A run that was killed goes on from its trace: no tool that may not be repeated is called
twice. Results leave the view, the oldest first, when it is full; that is told, and nothing else leaves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

from kvorum.harness.known_texts import KnownTexts
from kvorum.harness.live_text import Mode
from kvorum.harness.memory.policy import POLICIES
from kvorum.harness.pieces import Piece, write
from kvorum.harness.tools.approval import call_approved
from kvorum.harness.tools.call import Outcome
from kvorum.harness.tools.call_form import CallForm, call_form
from kvorum.harness.tools.call_reader import Said, calls_in
from kvorum.harness.tools.tool import Tool
from kvorum.harness.tools.toolbox import Toolbox
from kvorum.jsontypes import Json
from kvorum.programs.agent.beginning import begin, begin_behind_texts
from kvorum.programs.agent.context import Context
from kvorum.runs.annotations import Help, NonNegativeFloat, NonNegativeInt, PositiveInt
from kvorum.runs.program import program
from kvorum.runs.run import Run

RULES = (
    "Work on the user's task step by step. Call a tool for whatever a tool can find out or do; never make up its "
    "result. When you know enough, answer the user in plain words."
)
SHOWN = 400
"""Characters of arguments and results that a note of the trace shows; whole they stand elsewhere in it."""


@program("agent", "one worker thinks, calls tools and reads their results, until it answers", most_workers=1)
async def agent(
    run: Run,
    *,
    tools: Annotated[Sequence[Callable[..., Json] | Tool | str], Help(local=True)] = (),
    mcp: Annotated[str, Help(local=True)] = "",
    allow: Annotated[Sequence[str], Help(local=True)] = (),
    calls: NonNegativeInt = 16,
    tokens: PositiveInt = 1024,
    parallel: bool = True,
    grammar: bool = True,
    prune: Mode = "splice",
    context: PositiveInt | None = None,
    tool_seconds: NonNegativeFloat = 60.0,
    tool_chars: NonNegativeInt = 8000,
    rules: str = RULES,
    memory: Annotated[str, Help(local=True)] = "",
    who_writes: Annotated[str, Help(choices=tuple(POLICIES))] = "model",
    recall: NonNegativeInt = 8,
    skills: Annotated[Sequence[str], Help(local=True)] = (),
    scripts: Annotated[Sequence[str], Help(local=True)] = (),
    use: Annotated[Sequence[str], Help(local=True)] = (),
    decide: bool = False,
) -> str | None:
    """Let the worker write turn by turn; a turn without a call is its answer.

    Args:
        tools: Typed functions, tools, or places of such: FILE.py:NAME, package.module:NAME.
        mcp: A JSON file with mcpServers, whose tools the worker has too.
        allow: What is refused by default and may be used: names of servers or tools that reach the network.
        calls: How many calls it may make; then it must answer.
        tokens: The most tokens of a turn.
        parallel: A turn may have several calls.
        grammar: Hold calls to the tools' schemas while they are written.
        prune: What follows a result that leaves a full view moves up, is encoded again, or keeps its place; none: none
            leaves.
        context: The most tokens that the worker sees; default: as many as model and cache hold.
        tool_seconds: The most seconds of a call.
        tool_chars: The most characters of a result.
        rules: What the worker is told before the task.
        memory: The namespace of a memory, of which it sees what the task reminds of, and which it reads and writes by
            tools; none: it has no memory.
        who_writes: The policy by which it writes the memory.
        recall: The most entries that it sees from the beginning.
        skills: Folders of skills, which it switches on by a tool.
        scripts: Names of skills whose scripts it may run, each time behind a person's word.
        use: Names of skills that are on from the beginning.
        decide: Before it begins, a decision switches on the skill that the task needs, or none.
    """
    worker, task = run.workers[0], run.task.prompt
    known = await KnownTexts.open(
        run, namespace=memory, who_writes=who_writes, recall=recall, query=task, folders=skills
    )
    await known.begin_with(use, decide_one=decide)
    mine = known.tools(worker.name, scripts)
    async with Toolbox([*tools, *mine], mcp, allow, seconds=tool_seconds, chars=tool_chars) as box:
        bench = await box.open(run)
        form = call_form(run.engine)
        begun = await (begin_behind_texts if known.any else begin)(run, form, rules, bench, known)
        seen = Context(run, worker, begun.view, mode=prune, most=context)
        worker.show(form.shown)
        seen.feed(begun.pending)
        numbers = itertools.count(1)
        left = calls
        while not run.spent:
            choice = "auto" if left else "none"
            rule = form.grammar(bench, choice, parallel=parallel, loose=True) if grammar else None
            piece = Piece(worker, replace(run.sampling, grammar=rule), tokens=tokens)
            before = len(worker.ids)
            await seen.make_room(tokens)
            await write(run, [piece])
            if worker.failed is not None:  # what was written so far is no answer
                raise worker.failed
            written = len(worker.ids) - before
            reader = form.reader(lambda: f"call_{next(numbers)}", bench, loose=True)
            told = reader.all(piece.text)
            asked = calls_in(told)[:left]
            if not asked:
                words = "".join(one.text for one in told if isinstance(one, Said)).strip()
                return words or None
            seen.wrote(written, ended=bool(worker.ids) and worker.ids[-1] in run.ends)
            results = await _call_all(run, bench, asked, known, seconds=tool_seconds, chars=tool_chars)
            left -= len(asked)
            for name in known.on[begun.on :]:
                await seen.make_room(known.length(name))
                await begun.switch_on(seen, known, name)
            await seen.read(_pieces(run, form, [name for _, name, _, _ in asked]), results)
    return None


async def _call_all(
    run: Run,
    bench: Sequence[Tool],
    asked: Sequence[tuple[str, str, str, bool]],
    known: KnownTexts,
    *,
    seconds: float,
    chars: int,
) -> list[tuple[str, str]]:
    """Call what a turn asks for; of each the tool's name and the text of its result."""
    results: list[tuple[str, str]] = []
    for _, name, arguments, whole in asked:
        outcome = Outcome("error", "error: the call was not written to its end")
        if whole:
            outcome = await call_approved(run, bench, name, arguments, seconds=seconds, chars=chars)
        run.note(
            "tool",
            worker=run.workers[0].name,
            tool=name,
            status=outcome.status,
            arguments=arguments[:SHOWN],
            result=outcome.text[:SHOWN],
        )
        known.switched_on(name, arguments, outcome.status)
        results.append((name, outcome.text))
    return results


def _pieces(run: Run, form: CallForm, names: Sequence[str]) -> list[str]:
    """What the chat template has around the results of these calls."""
    return run.state.pieces(
        ["results", *names], lambda moment, switches: form.results(names, moment=moment, switches=switches)
    )
