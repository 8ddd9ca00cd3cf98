"""One chain of thought: the baseline of everything else. Exact against the model's own generate."""

from __future__ import annotations

from kvorum.harness.answers import KINDS, Answer, FinalTokens, force
from kvorum.harness.writing import own_answer, problem_for, read_commands, retire
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
    kind = KINDS[answer]
    worker = run.workers[0]
    worker.view = View(run.block(worker.name))
    worker.feed(run.chat(("user", f"{problem_for(run.task, worker.name)}\n\nThink step by step. {kind.request}")))
    while worker.active and not run.spent:
        await run.tick([worker])
        read_commands(run)
        retire(run, worker)
    return own_answer(run, worker, kind) or await force(run, worker, kind, tokens=final_tokens)
