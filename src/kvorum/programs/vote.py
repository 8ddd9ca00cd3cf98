"""Self-consistency: independent chains of thought and a majority vote (Wang et al. 2022, arXiv 2203.11171).

What the prompts have in common is encoded once and stands in every view; nobody sees anybody else.
"""

from __future__ import annotations

from kvorum.harness.answers import Answer, FinalTokens, closing, decided, force_all, kind_of, majority
from kvorum.harness.chain_of_thought import first_prompt, own_answer, share, write
from kvorum.kv import View
from kvorum.runs.loops import OnLoop
from kvorum.runs.program import program
from kvorum.runs.run import Run


@program(
    "vote",
    "independent workers, asked to think step by step; a majority vote over their answers",
    workers=4,
    private=True,
    exchange="independent",
    channels={"none": {}},
)
async def vote(
    run: Run, *, answer: Answer = "boxed", final_tokens: FinalTokens = None, loops: OnLoop = "end"
) -> str | None:
    """Every worker thinks alone, asked as in ``solo``, and answers, at the budget by force; the commonest answer wins.

    It ends as soon as those who still write cannot change the outcome. Answers are compared as ``normalised``; a tie
    goes to the answer whose first voter stands first in the team. Where nobody is asked for an answer, texts that are
    cut have a vote only if nobody has ended one.
    """
    run.loops = loops
    kind = kind_of(run, answer)
    prompts = [first_prompt(run, worker, kind) for worker in run.workers]
    shared = await share(run, "prompt", prompts)
    for worker, ids in zip(run.workers, prompts, strict=True):
        worker.view = View(*shared, run.block(worker.name))
        worker.feed(ids)
    settles = run.state.recording.version > 2  # earlier, all wrote to their ends

    def settled() -> bool:
        given = [own_answer(run, worker, kind) for worker in run.workers if not worker.active]
        waiting = [worker.name for worker in run.workers if worker.active]
        return settles and bool(waiting) and decided([answer for answer in given if answer], len(waiting))

    with run.work(closing(run, kind, final_tokens, workers=len(run.workers))):
        await write(run, run.workers, done=settled)
    voters = run.workers
    if settled():
        run.note("settled", waiting=[worker.name for worker in run.workers if worker.active])
        voters = [worker for worker in run.workers if not worker.active]
    own = {worker.name: own_answer(run, worker, kind) for worker in voters}
    silent = [worker for worker in voters if not own[worker.name] and not run.injections.stopped(worker.name)]
    if not kind.demand and any(own.values()):
        silent = []
    forced = await force_all(run, silent, kind, tokens=final_tokens) if silent else {}
    answers = {name: given for name, said in own.items() if (given := said or forced.get(name))}
    run.note("votes", answers=answers)
    return majority(answers.values())
