"""Self-consistency: independent chains of thought and a majority vote (Wang et al. 2022, arXiv 2203.11171).

The prompt is encoded once and stands in every view; nobody sees anybody else.
"""

from __future__ import annotations

from collections import Counter

from kvorum.engine.run import Run, program
from kvorum.kv import View
from kvorum.programs.answer import force_all, kind_of, normalised
from kvorum.programs.solo import own_answer, read_commands, settle


@program("vote", "independent workers, majority vote over their answers", workers=4)
async def vote(run: Run, *, answer: str = "boxed", final_tokens: int | None = None) -> str | None:
    """Every worker thinks alone; each then answers, by force at the budget; the commonest answer wins.

    Answers are compared as ``normalised``; a tie goes to the answer whose first voter stands first in the team.
    """
    kind = kind_of(answer)
    prompt = run.block("prompt")
    ids = run.chat(("user", f"{run.task.prompt}\n\nThink step by step. {kind.request}"))
    await run.prefill(View(prompt), ids[:-1])
    prompt.seal()
    for worker in run.workers:
        worker.view = View(prompt, run.block(worker.name))
        worker.feed(ids[-1:])
    while (active := [worker for worker in run.workers if worker.active]) and not run.spent:
        await run.tick(active)
        read_commands(run)
        for worker in active:
            settle(run, worker)
    own = {worker.name: own_answer(run, worker, kind) for worker in run.workers}
    silent = [worker for worker in run.workers if not own[worker.name]]
    forced = await force_all(run, silent, kind, tokens=final_tokens) if silent else {}
    answers = {name: given for name, said in own.items() if (given := said or forced[name])}
    counts = Counter(normalised(given) for given in answers.values())
    run.note("votes", answers=answers)
    return next((given for given in answers.values() if counts[normalised(given)] == max(counts.values())), None)
