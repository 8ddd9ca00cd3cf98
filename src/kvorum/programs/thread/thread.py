"""TIM: one worker that reasons as a tree of subtasks and forgets the finished ones (arXiv 2507.16784).

The worker writes one JSON document under a schema; what a finished list of subtasks held leaves the cache, its
conclusion stays. Siblings may be written at the same time, as forks that are joined. ``docs/programs/thread.md`` says
what is exact against what, and what the published systems leave open.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.answers import boxed, kind_of
from kvorum.harness.tools import Outcome, Tool, call, tool
from kvorum.kv import View
from kvorum.programs.thread.grammar import vocabulary
from kvorum.programs.thread.line import Line, Rules
from kvorum.programs.thread.prune import MODES, Live
from kvorum.programs.thread.text import force_answer, instructions, read_answer
from kvorum.runs.parameters import Help
from kvorum.runs.run import Run, Spent, program


@program("thread", "a tree of subtasks in one JSON document; finished ones leave the cache")
async def thread(
    run: Run,
    *,
    buffer: int = 1,
    trigger: str = "list",
    mode: str = "reencode",
    stub: str = "",
    keep: bool = False,
    levels: int = 4,
    width: int = 8,
    chars: int = 600,
    siblings: str = "serial",
    tools: Annotated[Sequence[Callable[..., Any] | Tool], Help("Functions that the worker may call.", local=True)] = (),
    recall: bool = False,
    tool_seconds: float = 20.0,
    tool_chars: int = 4000,
    grammar: bool = True,
    forced: bool = True,
    answer: str = "text",
    final_tokens: int | None = None,
    script: Annotated[
        Mapping[str, Sequence[str]] | None,
        Help("Texts to write in place of the model's own, by the title of the subtask.", local=True),
    ] = None,
) -> str | None:
    """Let the first worker write the document until it is done, broken, or the budget is spent; then it must answer.

    Args:
        buffer: k, how many finished subtask lists stay live. trigger: a list counts as finished when the "list" closes
            or when its task's "conclusion" does. mode: "reencode", "splice", "gap" or "none" (nothing is pruned).
        stub: text that stands in a pruned list's place. keep: hold its keys and values for ``recall``.
        levels: of subtasks under the first tasks. width: tasks in a list. chars: characters in a text.
        siblings: "serial", or "forks": a task may name its subtasks in a ``plan`` and all are written at once, each
            alone; "live": each sees what its siblings write, as they write it (a Hogwild! team in a thread).
        tools: typed callables (see ``thread_tools.tool``), each call within ``tool_seconds``, its result cut at
            ``tool_chars``. recall: also a tool that brings a pruned list back.
        grammar: hold the worker to the schema. forced: feed what the schema forces instead of picking it.
        answer: the kind of answer. final_tokens: the most tokens of a forced answer.
        script: texts to write instead of the model's own, by subtask title ("" for the document): a stand-in.
    """
    for name, value, known in (
        ("trigger", trigger, ("list", "conclusion")),
        ("mode", mode, (*MODES, "none")),
        ("siblings", siblings, ("serial", "forks", "live")),
    ):
        if value not in known:
            raise UnknownName(f"There is no {name} {value!r}; there are: {', '.join(known)}.")
    if buffer < 0 or levels < 0 or width < 1 or chars < 1:
        raise BadRequest("thread needs buffer and levels from 0 on, width and chars from 1 on.")
    kind = kind_of(answer)
    words = vocabulary(run.engine.tokenizer, run.engine.shape.vocab)
    bench = [item if isinstance(item, Tool) else tool(item) for item in tools]
    rules = Rules(
        words, buffer, trigger, mode, words.encode(stub), keep, levels, width, chars, siblings, grammar,
        forced, bench, script,
    )  # fmt: skip
    if recall:
        bench.append(tool(_recall))
    prompt = run.block("prompt")
    ids = run.chat(("user", instructions(rules) + run.task.prompt))
    await run.prefill(View(prompt), ids[:-1])
    worker = run.workers[0]
    root = Line(run, worker, Live(run, worker.name, View(prompt.seal(), run.block(worker.name))), rules, levels)
    root.live.base += 1  # the prompt's last token goes to the first block, so that it has logits
    worker.feed(ids[-1:])
    peak, outcome = 0, "spent"
    try:
        await root.force()
        while outcome == "spent" and not run.spent:
            await _advance(run, _lines(root), rules, tool_seconds, tool_chars)
            peak = max(peak, _live(root))
            if root.reader.done:
                outcome = "done"
            elif any(line.broken for line in _lines(root)):
                outcome = "malformed"
            elif any(command.kind == "answer" for command in run.take_commands()):
                outcome = "asked"
    except Spent:
        pass  # between two ticks, while something given was to be encoded
    run.note(
        "thread", outcome=outcome, peak=peak, reencoded=sum(line.live.reencoded for line in _lines(root)),
        tokens=sum(len(line.live.log) for line in _lines(root)), pruned=len(rules.pruned), document=root.reader.text(0),
    )  # fmt: skip
    text = read_answer(root) if outcome == "done" else await force_answer(run, root, final_tokens or kind.tokens)
    return (boxed(text) or text.strip() or None) if text is not None else None


async def _advance(run: Run, lines: list[Line], rules: Rules, seconds: float, chars: int) -> None:
    """One tick of all lines that can go on; else the tools that were called, or the joins that are due."""
    callers = [line for line in lines if line.call]
    found = await asyncio.gather(*(_call(run, line, rules, seconds, chars) for line in callers))
    for line, (name, outcome) in zip(callers, found, strict=True):
        if name == "recall" and outcome.status == "recall":  # edits of views are made anew by a replay
            outcome = await _undo(rules, outcome.text)
        run.note("tool", worker=line.worker.name, tool=name, status=outcome.status)
        await line.resume(outcome)
    if callers:
        return
    due = [line for line in lines if line.children and all(child.reader.done for child in line.children)]
    for line in due:
        await line.join()
    if due:
        return
    active = [line for line in lines if line.ready]
    for line in active:
        line.look()  # a sibling may have pruned, or gone on in another block
    await run.tick([line.worker for line in active])
    for line in active:
        await line.after()


async def _call(run: Run, line: Line, rules: Rules, seconds: float, chars: int) -> tuple[str, Outcome]:
    assert line.call is not None
    name, parameters = line.call.items
    if name == "recall" and any(item.function is _recall for item in rules.tools):
        return name, Outcome("recall", parameters)

    async def ask() -> dict[str, str]:
        return asdict(await call(rules.tools, name, parameters, seconds=seconds, chars=chars))

    return name, Outcome(**await run.outside(name, ask))


def _lines(line: Line) -> list[Line]:
    return [line, *(found for child in line.children for found in _lines(child))]


def _live(line: Line) -> int:
    """Live tokens of a line and, once each, of the lines that were forked from it."""
    return line.live.tokens + sum(_live(child) - line.live.tokens for child in line.children)


def _recall(number: int) -> str:
    """bring forgotten subtasks back, by number, the earliest is 0"""
    raise NotImplementedError  # an edit of views: see ``_undo``


async def _undo(rules: Rules, parameters: str) -> Outcome:
    """Put the pruned list back for which the recall tool asks."""
    number = json.loads(parameters).get("number")
    if not isinstance(number, int) or not 0 <= number < len(rules.pruned):
        return Outcome("error", f"error: {len(rules.pruned)} lists were forgotten")
    live, cut = rules.pruned[number]
    if cut not in live.cuts:
        return Outcome("error", f"error: list {number} is not missing")
    await live.undo(cut, rules.mode)
    return Outcome("ok", f"list {number} is back")
