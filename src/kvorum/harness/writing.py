"""What programs share in which each worker writes on at its own text: its problem, its commands, end and answer."""

from __future__ import annotations

from kvorum.harness.answers import Kind, extract
from kvorum.runs.program import Task
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker


def problem_for(task: Task, name: str) -> str:
    """The problem as the worker of that name is given it: with its private part, if it has one."""
    return f"{task.prompt}\n\nOnly you know this: {task.private[name]}" if name in task.private else task.prompt


def retire(run: Run, worker: Worker) -> None:
    """A worker that has just ended its text gets no more ticks."""
    if worker.ids[-1] in run.ends:
        worker.active = False


def own_answer(run: Run, worker: Worker, kind: Kind) -> str | None:
    """What a worker answered of its own accord; of kind "text" its whole text, if it has ended it."""
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
