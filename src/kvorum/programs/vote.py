"""Self-consistency: independent chains of thought and a majority vote (Wang et al. 2022, arXiv 2203.11171).

What the prompts have in common is encoded once and stands in every view; nobody sees anybody else.
"""

from __future__ import annotations

from collections import Counter
from itertools import takewhile

from kvorum.harness.answers import KINDS, Answer, FinalTokens, force_all
from kvorum.harness.writing import own_answer, problem_for, read_commands, retire
from kvorum.kv import View
from kvorum.runs.program import program
from kvorum.runs.run import Run
from kvorum.tasks.answers import normalised


@program(
    "vote",
    "independent workers, majority vote over their answers",
    workers=4,
    private=True,
    exchange="independent",
    channels={"none": {}},
)
async def vote(run: Run, *, answer: Answer = "boxed", final_tokens: FinalTokens = None) -> str | None:
    """Every worker thinks alone; each then answers, by force at the budget; the commonest answer wins.

    Answers are compared as ``normalised``; a tie goes to the answer whose first voter stands first in the team.
    """
    kind = KINDS[answer]
    prompt = run.block("prompt")
    prompts = [
        run.chat(("user", f"{problem_for(run.task, worker.name)}\n\nThink step by step. {kind.request}"))
        for worker in run.workers
    ]
    columns = zip(*(ids[:-1] for ids in prompts), strict=False)
    common = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    await run.prefill(View(prompt), common)
    prompt.seal()
    for worker, ids in zip(run.workers, prompts, strict=True):
        worker.view = View(prompt, run.block(worker.name))
        worker.feed(ids[len(common) :])
    while (active := [worker for worker in run.workers if worker.active]) and not run.spent:
        await run.tick(active)
        read_commands(run)
        for worker in active:
            retire(run, worker)
    own = {worker.name: own_answer(run, worker, kind) for worker in run.workers}
    silent = [worker for worker in run.workers if not own[worker.name] and not run.injections.stopped(worker.name)]
    forced = await force_all(run, silent, kind, tokens=final_tokens) if silent else {}
    answers = {name: given for name, said in own.items() if (given := said or forced.get(name))}
    counts = Counter(normalised(given) for given in answers.values())
    run.note("votes", answers=answers)
    return next((given for given in answers.values() if counts[normalised(given)] == max(counts.values())), None)
