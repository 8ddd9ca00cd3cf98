"""The bare chat template: the user's words and nothing added. What every other program is measured against."""

from __future__ import annotations

from kvorum.harness.answers import Answer, kind_of
from kvorum.harness.chain_of_thought import problem, think_and_answer
from kvorum.kv import View
from kvorum.runs.loops import OnLoop
from kvorum.runs.program import program
from kvorum.runs.run import Run


@program(
    "plain",
    "the chat template and your words, nothing added",
    most_workers=1,
    private=True,
    exchange="independent",
    channels={"none": {}},
)
async def plain(run: Run, *, answer: Answer = "text", loops: OnLoop = "go_on") -> str | None:
    """The worker writes until it ends its text or the budget is spent; what it wrote is the answer.

    Nothing asks it for one: an answer of another kind than text is read from what it wrote.
    """
    run.loops = loops
    worker = run.workers[0]
    worker.view = View(run.block(worker.name))
    worker.feed(run.chat(("user", problem(run, worker))))
    return await think_and_answer(run, worker, kind_of(run, answer, asks=False))
