"""One chain of thought: the baseline of everything else. Exact against the model's own generate."""

from __future__ import annotations

from kvorum.harness.answers import KINDS, Answer, FinalTokens
from kvorum.harness.chain_of_thought import first_prompt, think_and_answer
from kvorum.kv import View
from kvorum.runs.program import program
from kvorum.runs.run import Run


@program(
    "solo",
    "one worker, one chain of thought",
    most_workers=1,
    private=True,
    exchange="independent",
    channels={"none": {}},
)
async def solo(run: Run, *, answer: Answer = "boxed", final_tokens: FinalTokens = None) -> str | None:
    """The worker thinks alone until it ends its text or the budget is spent; then it must answer."""
    worker = run.workers[0]
    worker.view = View(run.block(worker.name))
    worker.feed(first_prompt(run, worker, KINDS[answer]))
    return await think_and_answer(run, worker, KINDS[answer], final_tokens)
