"""One chain of thought: the baseline of everything else. Exact against the model's own generate."""

from __future__ import annotations

from kvorum.harness.answers import Answer, FinalTokens, kind_of
from kvorum.harness.chain_of_thought import first_prompt, think_and_answer
from kvorum.kv import View
from kvorum.runs.loops import OnLoop
from kvorum.runs.program import program
from kvorum.runs.run import Run


@program(
    "solo",
    "one worker, asked to think step by step",
    most_workers=1,
    private=True,
    exchange="independent",
    channels={"none": {}},
)
async def solo(
    run: Run, *, answer: Answer = "boxed", final_tokens: FinalTokens = None, loops: OnLoop = "end"
) -> str | None:
    """The worker thinks alone until it ends its text or the budget is spent; then it is asked for a boxed answer.

    Behind the problem stands a request to think step by step and to give the answer in its form; texts are not asked
    for anything.
    """
    run.loops = loops
    worker, kind = run.workers[0], kind_of(run, answer)
    worker.view = View(run.block(worker.name))
    worker.feed(first_prompt(run, worker, kind))
    return await think_and_answer(run, worker, kind, final_tokens)
