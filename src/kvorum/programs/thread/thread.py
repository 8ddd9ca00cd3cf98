"""TIM: one worker that reasons as a tree of subtasks and forgets the finished ones (arXiv 2507.16784).

The worker writes one JSON document under a schema; what a finished list of subtasks held leaves the cache, its
conclusion stays. Siblings may be written at the same time, as forks that are joined. ``docs/programs/thread.md`` says
what is exact against what, and what the published systems leave open.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal

from kvorum.harness.answers import Answer, FinalTokens, boxed, kind_of, read
from kvorum.harness.live_text import Mode
from kvorum.harness.tools.approval import REFUSED, permitted
from kvorum.harness.tools.call import Outcome, call_outside
from kvorum.harness.tools.tool import Tool, tool
from kvorum.jsontypes import Json
from kvorum.kv import View
from kvorum.programs.thread.grammar import schema, vocabulary
from kvorum.programs.thread.prompts import closing, force_answer, instructions, read_answer
from kvorum.programs.thread.writer import TaskWriter, ThreadRules
from kvorum.runs.annotations import Help, NonNegativeFloat, NonNegativeInt, PositiveInt
from kvorum.runs.program import program
from kvorum.runs.run import Run


@program(
    "thread", "a tree of subtasks in one JSON document; finished ones leave the cache", most_workers=1, listens=False
)
async def thread(
    run: Run,
    *,
    buffer: NonNegativeInt = 1,
    trigger: Literal["list", "conclusion"] = "list",
    mode: Mode = "reencode",
    stub: str = "",
    keep: bool = False,
    levels: NonNegativeInt = 4,
    width: PositiveInt = 8,
    chars: PositiveInt = 600,
    siblings: Literal["serial", "forks", "live"] = "serial",
    tools: Annotated[Sequence[Callable[..., Json] | Tool], Help(local=True)] = (),
    recall: bool = False,
    tool_seconds: NonNegativeFloat = 20.0,
    tool_chars: NonNegativeInt = 4000,
    grammar: bool = True,
    forced: bool = True,
    answer: Answer = "text",
    final_tokens: FinalTokens = None,
    script: Annotated[Mapping[str, Sequence[str]] | None, Help(local=True)] = None,
) -> str | None:
    """Let the worker write the document until it is done, broken, or the budget is spent; then it must answer.

    Args:
        buffer: k: how many finished lists of subtasks stay live.
        trigger: A list counts as finished as it closes, or at its task's conclusion.
        mode: What follows a pruned list is encoded again, moves up, or keeps its positions; none: no pruning.
        stub: The text that stands in a pruned list's place.
        keep: Hold the keys and values of pruned lists, so that they can be recalled.
        levels: Levels of subtasks under the first tasks.
        width: The most tasks in a list.
        chars: The most characters of a text.
        siblings: Subtasks are written in turn; at once, each alone; or at once, each seeing what its siblings write.
        tools: Typed functions that the worker may call.
        recall: Give the worker a tool that brings a pruned list back.
        tool_seconds: The most seconds of a call.
        tool_chars: The most characters of a result.
        grammar: Hold the worker to the schema of the document.
        forced: Feed what the schema forces, in place of picking it.
        script: Texts to write in place of the model's own, by the title of the subtask.
    """
    kind = kind_of(run, answer)
    words = await run.beside(vocabulary, run.engine.grammars)
    bench = [item if isinstance(item, Tool) else tool(item) for item in tools] + ([tool(_recall)] if recall else [])
    fields = [item.schema for item in bench]
    document = partial(schema, tools=fields, width=width, chars=chars, parallel=siblings != "serial")
    rules = ThreadRules(
        words=words,
        buffer=buffer,
        trigger=trigger,
        mode=mode,
        stub=words.encode(stub),
        keep=keep,
        levels=levels,
        siblings=siblings,
        schema=document if grammar else None,
        forced=forced,
        tools=bench,
        script=script,
    )
    prompt = run.block("prompt")
    ids = run.chat(("user", instructions(rules) + run.task.prompt))
    await run.prefill(View(prompt), ids[:-1])
    worker = run.workers[0]
    root = TaskWriter(run, worker, View(prompt.seal(), run.block(worker.name)), rules, levels)
    root.live.base += 1  # the prompt's last token goes to the first block, so that it has logits
    worker.feed(ids[-1:])
    peak, outcome = 0, "spent"
    with run.work(closing(run, final_tokens or kind.tokens)):
        await root.force()
        while outcome == "spent" and not run.spent:
            await _advance(run, _writers(root), rules, tool_seconds, tool_chars)
            peak = max(peak, _live(root))
            if root.reader.done:
                outcome = "done"
            elif any(writer.broken for writer in _writers(root)):
                outcome = "malformed"
            elif any(command.kind == "answer" for command in run.take_commands()):
                outcome = "asked"
    writers = _writers(root)
    run.note(
        "thread",
        outcome=outcome,
        peak=peak,
        reencoded=sum(writer.live.reencoded for writer in writers),
        tokens=sum(len(writer.live.log) for writer in writers),
        pruned=len(rules.pruned),
        document=root.reader.text(0),
    )
    text = read_answer(root) if outcome == "done" else await force_answer(run, root, final_tokens or kind.tokens)
    if text is None or kind.name == "json":
        return read(text or "", kind)
    return boxed(text) or text.strip() or None


async def _advance(run: Run, writers: list[TaskWriter], rules: ThreadRules, seconds: float, chars: int) -> None:
    """One tick of all writers that can go on; else the tools that were called, or the joins that are due."""
    callers = [writer for writer in writers if writer.call]
    allowed = [await _permitted(run, writer, rules) for writer in callers]  # in order: a replay asks in the same one
    calls = zip(callers, allowed, strict=True)
    found = await asyncio.gather(*(_call(run, writer, rules, seconds, chars, allow) for writer, allow in calls))
    for writer, (name, outcome) in zip(callers, found, strict=True):
        if name == "recall" and outcome.status == "recall":  # edits of views are made anew by a replay
            outcome = await _undo(rules, outcome.text)
        run.note("tool", worker=writer.worker.name, tool=name, status=outcome.status)
        await writer.resume(outcome)
    if callers:
        return
    due = [writer for writer in writers if writer.children and all(child.reader.done for child in writer.children)]
    for writer in due:
        await writer.join()
    if due:
        return
    active = [writer for writer in writers if writer.ready]
    for writer in active:
        writer.look()  # a sibling may have pruned, or gone on in another block
    await run.tick([writer.worker for writer in active])
    for writer in active:
        await writer.after()


async def _permitted(run: Run, writer: TaskWriter, rules: ThreadRules) -> bool:
    assert writer.call is not None
    return await permitted(run, rules.tools, *writer.call.items)


async def _call(
    run: Run, writer: TaskWriter, rules: ThreadRules, seconds: float, chars: int, allowed: bool
) -> tuple[str, Outcome]:
    assert writer.call is not None
    name, parameters = writer.call.items
    if not allowed:
        return name, Outcome("refused", REFUSED)
    if name == "recall" and any(item.function is _recall for item in rules.tools):
        return name, Outcome("recall", parameters)
    return name, await call_outside(run, rules.tools, name, parameters, seconds=seconds, chars=chars)


def _writers(writer: TaskWriter) -> list[TaskWriter]:
    return [writer, *(found for child in writer.children for found in _writers(child))]


def _live(writer: TaskWriter) -> int:
    """Live tokens of a writer and, once each, of the writers that were forked from it."""
    return writer.live.tokens + sum(_live(child) - writer.live.tokens for child in writer.children)


def _recall(number: int) -> str:
    """bring forgotten subtasks back, by number, the earliest is 0"""
    raise NotImplementedError  # an edit of views: see ``_undo``


async def _undo(rules: ThreadRules, parameters: str) -> Outcome:
    """Put the pruned list back for which the recall tool asks."""
    number = json.loads(parameters).get("number")
    if not isinstance(number, int) or not 0 <= number < len(rules.pruned):
        return Outcome("error", f"error: {len(rules.pruned)} lists were forgotten")
    live, cut = rules.pruned[number]
    if cut not in live.cuts:
        return Outcome("error", f"error: list {number} is not missing")
    await live.undo(cut, rules.mode)
    return Outcome("ok", f"list {number} is back")
