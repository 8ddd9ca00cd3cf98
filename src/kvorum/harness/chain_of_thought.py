"""Chains of thought: workers that each write on at their own text, until it ends or they may not go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TypeVar

from kvorum.harness.answers import AnswerKind, closing, extract, force, read
from kvorum.kv import Block, View
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker

T = TypeVar("T")


def problem(run: Run, worker: Worker) -> str:
    """The problem as this worker is given it: the user's words, and its private part where the task has one for it."""
    private = run.task.private.get(worker.name)
    return run.task.prompt + (f"\n\nOnly you know this: {private}" if private is not None else "")


def first_prompt(run: Run, worker: Worker, kind: AnswerKind) -> list[int]:
    """The ids of the problem and of the request to think first; nothing is added where a text is asked for."""
    asked = f"\n\nThink step by step. {kind.request}" if kind.request else ""
    return run.chat(("user", problem(run, worker) + asked))


def common_start(sequences: Sequence[Sequence[T]]) -> list[T]:
    """What all of the sequences begin with."""
    columns = zip(*sequences, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


async def share(run: Run, name: str, prompts: Sequence[list[int]], before: Sequence[Block] = ()) -> list[Block]:
    """Encode once, behind ``before``, what the prompts begin with in common; they keep the rest, at least one token."""
    common = common_start([ids[:-1] for ids in prompts])
    if run.spent or len(common) < 2:
        return []
    block = run.block(name)
    await run.prefill(View(*before, block), common)
    for ids in prompts:
        del ids[: len(common)]
    return [block.seal()]


async def write(
    run: Run, workers: Sequence[Worker], tokens: int | None = None, *, done: Callable[[], bool] = lambda: False
) -> None:
    """Let workers write until each has ended its text or has ``tokens`` tokens, or the budget is spent, or ``done``.

    What is said to a worker is fed to it; one that is to leave, and all where the answer is wanted now, are ended.
    """
    while not run.spent and not done():
        active = [worker for worker in workers if worker.active and (tokens is None or len(worker.ids) < tokens)]
        if not active:
            return
        await run.tick(active)
        for command in run.take_commands():
            for worker in run.workers:
                if command.kind == "answer" or (worker.name == command.worker and command.kind == "leave"):
                    worker.active = False
                elif worker.name == command.worker and command.kind == "say":
                    worker.feed(run.encode(command.text))
        for worker in active:
            worker.active &= worker.ids[-1] not in run.ends


def own_answer(run: Run, worker: Worker, kind: AnswerKind) -> str | None:
    """What a worker answered of its own accord: one that stands on its own, or what it wrote if it has ended its text.

    Where answers are asked for at the end, the first alone counts, but for texts, which are complete once it stops.
    """
    if kind.demand:
        return extract(worker.text, kind) if kind.name != "text" else None if worker.active else worker.text.strip()
    ended = bool(worker.ids) and worker.ids[-1] in run.ends
    return read(worker.text, kind) if ended else extract(worker.text, kind)


async def think_and_answer(run: Run, worker: Worker, kind: AnswerKind, tokens: int | None = None) -> str | None:
    """Let a worker write to its end; its own answer, else what ``force`` makes of it in at most ``tokens``."""
    with run.work(closing(run, kind, tokens)):
        await write(run, [worker])
    return own_answer(run, worker, kind) or await force(run, worker, kind, tokens=tokens)
