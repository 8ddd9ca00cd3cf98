"""One chain of thought: the baseline of everything else. Exact against the model's own generate."""

from __future__ import annotations

from kvorum.harness.answers import KINDS, Answer, FinalTokens, Kind, extract, force
from kvorum.kv import View
from kvorum.runs.run import Run, Task, program
from kvorum.runs.worker import Worker


@program("solo", "one worker, one chain of thought", most_workers=1, private=True, channels={"none": {}})
async def solo(run: Run, *, answer: Answer = "boxed", final_tokens: FinalTokens = None) -> str | None:
    """The worker thinks alone until it ends its text or the budget is spent; then it must answer."""
    kind = KINDS[answer]
    worker = run.workers[0]
    worker.view = View(run.block(worker.name))
    worker.feed(run.chat(("user", f"{told(run.task, worker.name)}\n\nThink step by step. {kind.request}")))
    while worker.active and not run.spent:
        await run.tick([worker])
        read_commands(run)
        settle(run, worker)
    return own_answer(run, worker, kind) or await force(run, worker, kind, tokens=final_tokens)


def told(task: Task, name: str) -> str:
    """The problem as one worker is told it: with its private part, if it has one."""
    return f"{task.prompt}\n\nOnly you know this: {task.private[name]}" if name in task.private else task.prompt


def settle(run: Run, worker: Worker) -> None:
    """A worker that has ended its text gets no more ticks."""
    if worker.ids[-1] in run.ends:
        worker.active = False


def own_answer(run: Run, worker: Worker, kind: Kind) -> str | None:
    """What a worker answered of its own accord."""
    if kind.name == "text":
        return worker.text.strip() if not worker.active else None
    return extract(worker.text, kind)


def read_commands(run: Run) -> None:
    """Take up what was asked since the last tick: ``say`` feeds a worker, ``leave`` and ``answer`` end its work."""
    for command in run.take_commands():
        for worker in run.workers:
            if command.kind == "answer" or (worker.name == command.worker and command.kind == "leave"):
                worker.active = False
            elif worker.name == command.worker and command.kind == "say":
                worker.feed(run.encode(command.text))
