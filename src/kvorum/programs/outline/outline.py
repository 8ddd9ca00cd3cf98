"""An outline, then its sections side by side: Skeleton-of-Thought (arXiv 2307.15337) as published, and over one cache.

As published every section gets a request of its own that holds the outline as text. In kvorum's form nothing is encoded
twice: the sections are parts of the one reply that began with the outline, and stand behind it in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from kvorum.engine.budget import Ledger
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.programs.outline.prompts import whole
from kvorum.programs.outline.sections import Sections, Sees
from kvorum.runs.annotations import Help, PositiveInt
from kvorum.runs.loops import OnLoop
from kvorum.runs.parameters import Value
from kvorum.runs.program import find, program
from kvorum.runs.run import Run

Form = Literal["shared", "published"]
Order = Literal["together", "in_turn"]


def fit_together(workers: int, *, form: str, sees: str, leaf: str, least: int, sections: int, **params: Value) -> None:
    """Raises BadRequest where parameters contradict each other."""
    if least > sections:
        raise BadRequest(f"least={least} is more than sections={sections}.")
    if form == "published" and (sees != "outline" or leaf):
        raise BadRequest("form=published has sees=outline and no leaf: each point is a request of its own.")
    if leaf and sees == "live":
        raise BadRequest(f"sees=live is for sections that write themselves; {leaf} writes where nobody reads along.")


@program(
    "outline",
    "an outline, then its sections side by side",
    most_workers=1,
    exchange="shared",
    names=lambda workers, **params: ("Outline",),
    together=fit_together,
)
async def outline(
    run: Run,
    *,
    sees: Sees = "outline",
    sections: PositiveInt = 10,
    least: PositiveInt = 3,
    tokens: PositiveInt | None = None,
    outline_tokens: PositiveInt = 256,
    order: Order = "together",
    form: Form = "shared",
    leaf: Annotated[str, Help(program=True)] = "",
    leaf_params: Annotated[Mapping[str, Json] | None, Help(params_of="leaf")] = None,
    loops: OnLoop = "end",
) -> str | None:
    """One worker writes an outline; then every section has a worker of its own, and all write in the same ticks.

    The answer is the sections in their order. Where the budget ends them it is what they have by then, and where it
    ends the outline, that. A grammar of the run's sampling holds for every section by itself.

    Args:
        sees: What a section sees beside the problem; the outline, with the other sections as they are written (live),
            or nothing.
        sections: The most sections.
        least: The fewest that an outline may have (form=shared, where a grammar holds it to that).
        tokens: The most tokens of a section; none, to its end or the budget's.
        outline_tokens: The most tokens of the outline.
        order: All sections at once, or one after the other, each written when those before are.
        form: Sections as parts of one reply in the cache, or as published, each a request with the outline as text.
        leaf: The program that writes each section, behind what a section sees; by default its worker does.
        leaf_params: The parameters of that program, and its workers.
    """
    run.loops = loops
    made = Sections(run, published=form == "published", sees=sees, tokens=tokens)
    with run.work(Ledger()):
        await made.plan(least=least, most=sections, tokens=outline_tokens)
        run.note("outline", titles=[title.point for title in made.titles], form=form, sees=sees)
        if leaf:
            await made.by_program(find(leaf), leaf_params or {}, together=order == "together")
        else:
            await made.write(together=order == "together")
    if not made.done:
        run.outcome = "cut"
    return whole(made.written, published=made.published) or made.text.strip() or None
