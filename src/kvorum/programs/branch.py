"""Fork and join: attempts that begin at the same position, blind to each other, and an answer that reads them all.

The shape of Multiverse (arXiv 2506.09991) and ParaThinker (2509.04475), for models that were not trained for it: each
attempt stands right behind the prompt, as if it were alone, and the join stands behind the longest.
"""

from __future__ import annotations

from typing import Annotated, Literal

from kvorum.engine.row import Cost
from kvorum.harness.answers import Answer, FinalTokens, closing, force, kind_of
from kvorum.harness.chain_of_thought import first_prompt, own_answer, share, write
from kvorum.kv import Span, View
from kvorum.runs.annotations import Help
from kvorum.runs.program import program
from kvorum.runs.run import Run

JOINING = "\n\nNow all attempts are here. Together they say the following.\n\n"
"""What the join begins with, behind the attempts."""

Stand = Literal["beside", "behind"]


@program(
    "branch",
    "attempts side by side at the same position, and an answer that reads them all",
    workers=3,
    exchange="independent",
)
async def branch(
    run: Run,
    *,
    tokens: Annotated[
        int | None, Help("The most tokens of an attempt; none: to its end or the budget's.", low=1)
    ] = None,
    stand: Annotated[
        Stand, Help("Where the join sees attempts: all at one position, or one behind the other.")
    ] = "beside",
    answer: Answer = "boxed",
    final_tokens: FinalTokens = None,
) -> str | None:
    """Each worker makes an attempt, blind to the others; then one more, the join, reads all attempts and answers.

    An attempt stands right behind the prompt. With ``stand=beside`` the join sees them all there, at the same
    positions, and stands behind the longest: no attempt is further from the problem than another. Nothing is encoded
    again. Where the budget ends before the join has answered, it is asked from what the attempts have; of texts, for
    which nobody is asked, the answer is then what the join has written, or else the first attempt.
    """
    kind = kind_of(run, answer)
    attempts = list(run.workers)
    prompts = [first_prompt(run, worker, kind) for worker in attempts]
    shared = await share(run, "prompt", prompts)
    at = len(View(*shared))
    for worker, ids in zip(attempts, prompts, strict=True):
        worker.view = View(*shared, run.block(worker.name))
        worker.feed(ids)
    join = run.add_worker("Join")
    with run.work(closing(run, kind, final_tokens)):
        await write(run, attempts, tokens)
        written = [worker for worker in attempts if worker.ids and worker.ids[-1] not in run.ends and worker.pending]
        if written:  # the last token of each is not in its block yet
            rows = [worker.row() for worker in written]
            await run.forward(rows, [Cost(worker.picked) for worker in written])
    place = at if stand == "beside" else None
    join.view = View(*shared, *(Span(worker.own, at=place) for worker in attempts), run.block("Join"))
    run.note("join", attempts=[len(worker.ids) for worker in attempts], at=at, stand=stand)
    join.feed(run.encode(JOINING))
    with run.work(closing(run, kind, final_tokens)):
        await write(run, [join])
    found = own_answer(run, join, kind) or await force(run, join, kind, tokens=final_tokens)
    return found or next((text for worker in attempts if (text := worker.text.strip())), None)
