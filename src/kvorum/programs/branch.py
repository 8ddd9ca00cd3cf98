"""Fork and join: attempts that begin at the same position, blind to each other, and an answer that reads them all.

The shape of Multiverse (arXiv 2506.09991) and ParaThinker (2509.04475), for models that were not trained for it: each
attempt stands right behind the prompt, as if it were alone, and the join stands behind the longest.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal

from kvorum.engine.budget import Ledger
from kvorum.engine.row import Cost
from kvorum.harness.answers import Answer, FinalTokens, closing, force, kind_of
from kvorum.harness.chain_of_thought import first_prompt, own_answer, share, write
from kvorum.harness.inner_programs import InnerPlace, answers_inside, asked_for
from kvorum.harness.shared_text import quoted_ids
from kvorum.jsontypes import Json
from kvorum.kv import Span, View
from kvorum.runs.annotations import Help
from kvorum.runs.program import find, program
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent

JOINING = "\n\nNow all attempts are here. Together they say the following.\n\n"
"""What the join begins with, behind the attempts."""

TOLD = 64
"""For so many tokens of each program's answer the join's reading is set aside, where nobody says how many."""

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
    leaf: Annotated[str, Help("The program that makes each attempt; by default its worker does.", program=True)] = "",
    leaf_params: Annotated[
        Mapping[str, Json] | None, Help("The parameters of that program, and its workers.", params_of="leaf")
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
    which nobody is asked, the answer is then what the join has written, or else the first attempt. A ``leaf`` works
    in the place of each worker, on the same problem; its answer is encoded where the attempt would stand.
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
    told: list[str | None] = []
    aside = closing(run, kind, final_tokens)
    if leaf:  # what they answer has to be encoded, whatever they spend
        aside.add(Ledger(ticks=1, prefill=sum(map(len, prompts)) + (tokens or TOLD) * len(attempts)))
    with run.work(aside):
        if leaf:
            inner = find(leaf)
            places = [InnerPlace(worker.name, View()) for worker in attempts]
            told = await answers_inside(run, inner, asked_for(inner, leaf_params, answer), places)
        else:
            await write(run, attempts, tokens)
            written = [one for one in attempts if one.ids and one.ids[-1] not in run.ends and one.pending]
            if written:  # the last token of each is not in its block yet
                await run.forward([one.row() for one in written], [Cost(one.picked) for one in written])
    for worker, text in zip(attempts, told, strict=False):
        worker.feed(quoted_ids(run, text or "")[:tokens])
    if any(told):
        with suppress(Spent):
            await run.forward([one.row() for one in attempts], [Cost(0)] * len(attempts))
    place = at if stand == "beside" else None
    join.view = View(*shared, *(Span(worker.own, at=place) for worker in attempts), run.block("Join"))
    run.note("join", attempts=[len(worker.ids) or len(worker.own) for worker in attempts], at=at, stand=stand)
    join.feed(run.encode(JOINING))
    with run.work(closing(run, kind, final_tokens)):
        await write(run, [join])
    found = own_answer(run, join, kind) or await force(run, join, kind, tokens=final_tokens)
    return found or next((text for text in (*told, *(worker.text.strip() for worker in attempts)) if text), None)
