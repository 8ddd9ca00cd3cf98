"""What a thread's worker is told, and how the answer is read from its document or forced when that is not whole."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from kvorum.engine.budget import Ledger
from kvorum.programs.thread.writer import TaskWriter, ThreadRules
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent
from kvorum.tasks.scoring import json_answer

PROMPT = """Solve the problem below by writing one JSON document of nested tasks:
{{"reasoning":[task, ...],"answer":"..."}}
A task is {{"thought":"...",{fields}"conclusion":"..."}}. In "thought", take stock and say what to do next. {rest}\
In "conclusion", say briefly what was found: only conclusions are remembered. "answer" is the final answer alone.

"""


def instructions(rules: ThreadRules) -> str:
    """The words before the problem."""
    fields = rest = ""
    if rules.tools:
        fields += '"tooluse":{"tool_name":"...","parameters":{...},"tool_result":"..."},'
        rest += "Tools, whose results are filled in for you: "
        rest += "; ".join(f"{t.name}({', '.join(t.properties)}): {t.description}" for t in rules.tools) + ". "
    if rules.levels:
        fields += '"plan":["title", ...],' if rules.parallel else '"subtasks":[task, ...],'
        rest += (
            "If a task needs several independent steps, name them in a plan; they are then worked on at once. "
            if rules.parallel
            else "Give a task subtasks only if it needs several steps. "
        )
    return PROMPT.format(fields=fields, rest=rest)


def read_answer(root: TaskWriter) -> str | None:
    """The answer of a whole document, or None."""
    answer = json_answer(root.reader.text(0)).get("answer")
    return answer if isinstance(answer, str) else None


def closing(run: Run, tokens: int) -> Ledger:
    """What ``force_answer`` costs at most, for ``Run.work``; what closes a document is seldom longer."""
    return Ledger(ticks=tokens, decoded=tokens, prefill=len(run.encode('"}]},"answer":"')) + 16)


async def force_answer(run: Run, root: TaskWriter, tokens: int) -> str | None:
    """Close what is open and let the worker write the answer's text, greedily, from what is live."""
    run.force()
    worker, reader = root.worker, root.reader
    said = b""
    frames = reader.frames
    if not root.broken and len(frames) == 1 and frames[0].key == "answer" and reader.in_string:
        said = reader.begun
    else:
        close = root.closing if root.broken else reader.closing()
        start = b"," if reader.frames else b'{"reasoning":[],'
        worker.feed(root.rules.words.encode(close + start + b'"answer":"'))
    worker.allow = None
    worker.sampling = replace(worker.sampling, temperature=0.0)
    for _ in range(tokens):
        try:
            await run.tick([worker])
        except Spent:
            run.outcome = "cut"
            break
        said += b"" if worker.ids[-1] in run.ends else root.rules.words.pieces[worker.ids[-1]]
        closed = re.match(rb'((?:[^"\\]|\\.)*)"', said, re.DOTALL)
        if closed is not None or worker.ids[-1] in run.ends:
            said = said if closed is None else closed[1]
            break
    try:
        return str(json.loads(b'"' + said + b'"', strict=False))
    except ValueError:
        return said.decode("utf-8", "replace")
