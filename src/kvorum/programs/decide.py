"""Typed questions about a state, in as few ticks as possible: see ``harness.decisions`` and docs/decide.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from kvorum.engine.budget import Budget
from kvorum.engine.engine import EngineCore
from kvorum.engine.text import thinking_switches
from kvorum.errors import BadRequest
from kvorum.harness.decisions.answers import Decisions
from kvorum.harness.decisions.calibration import Calibration, read_calibration
from kvorum.harness.decisions.decide import Asking, State, Way, seen_or_read
from kvorum.harness.decisions.decide import decide as ask
from kvorum.harness.decisions.prompts import OrderBy
from kvorum.harness.decisions.questions import Question, YesNo, named
from kvorum.harness.decisions.wire import as_json, read_questions
from kvorum.jsontypes import Json, JsonObject
from kvorum.kv import Block, View
from kvorum.runs.annotations import Help, NonNegativeInt
from kvorum.runs.parameters import Value
from kvorum.runs.program import Task, program
from kvorum.runs.run import Run
from kvorum.runs.start import arun
from kvorum.store.events import Event
from kvorum.store.kept_blocks import KeptBlocks


def as_calibrated(workers: int, *, calibration: Mapping[str, Json] | None, **params: Value) -> None:
    """Raises BadRequest where questions are asked in another way than those that the calibration was fitted on."""
    if calibration is None:
        return
    for name, fitted in read_calibration(calibration).way.items():
        if params[name] != fitted:
            raise BadRequest(f"The calibration was fitted with {name}={fitted}, so it says nothing for {params[name]}.")


@program(
    "decide",
    "many typed questions about one text, answered by probabilities in one tick",
    most_workers=1,
    listens=False,
    own_tasks=True,
    channels={"none": {}},
    together=as_calibrated,
)
async def decide(
    run: Run,
    *,
    questions: Sequence[Mapping[str, Json]] = (),
    orders: NonNegativeInt = 1,
    order_by: Literal["views", "encoded"] = "views",
    sees: Literal["none", "earlier"] = "none",
    prior: bool = False,
    calibration: Mapping[str, Json] | None = None,
    state: Annotated[View | Block | Sequence[Block] | None, Help(local=True)] = None,
) -> str | None:
    """Answer each question about the problem's text with a probability for everything that may be answered.

    The text is encoded once, and so is what several questions begin with; nothing is written, so workers stay idle.
    Without questions the problem is itself one, to be answered with yes or no.

    Args:
        questions: What is asked, as in OpenAI's decisions: of each its type, name, instructions, choices or levels.
        orders: In how many orders the options of a choice are listed, for a mean over them; 0 lists none.
        order_by: Several orders are views over the same option blocks, or each is encoded anew.
        sees: Whether a question is told the answers to those before it.
        prior: Divide by what is answered about texts that say nothing.
        calibration: What `kvorum decide --calibrate` found: temperatures, and how questions must be asked for them.
        state: A view, a block, or blocks one behind the other, in place of the problem's text.
    """
    known = {} if calibration is None else read_calibration(calibration).temperatures
    asking = Asking(orders, order_by, sees, prior, known)
    asked = named(read_questions(list(questions))) if questions else [YesNo(run.task.prompt, "answer")]
    about = state if state is not None else run.task.prompt if questions else ""
    found = await ask(run, about, asked, asking)
    run.product = Decisions(found, run.ledger, run.spent if len(found) < len(asked) else None)
    if not found:
        return None
    if len(found) < len(asked):
        run.outcome = "cut"
    lines = [f"{decision.name}: {decision.label}" for decision in found]
    return found[0].label if len(asked) == 1 else "\n".join(lines)


async def adecide(
    engine: EngineCore,
    /,
    state: State | Json,
    questions: str | Question | Sequence[Question | str | JsonObject] | JsonObject,
    *,
    orders: int = 1,
    order_by: OrderBy = "views",
    sees: Literal["none", "earlier"] = "none",
    prior: bool = False,
    calibration: Calibration | None = None,
    budget: Budget | None = None,
    thinking: bool | None = None,
    kept: KeptBlocks | None = None,
    trace: str | Path | None = None,
    listener: Callable[[Event], None] | None = None,
) -> Decisions:
    """Ask typed questions about a state; the answers in order, with a probability for everything that may be answered.

    Args:
        state: a text, or JSON that is read as text; or a view, a block, or blocks one behind the other, behind which
            the questions stand as a user's next words. It stays as it is.
        questions: a ``YesNo``, ``Choice`` or ``Score``, texts to be answered with yes or no, or JSON in the shape of
            System One or of OpenAI's decisions.
        orders: in how many orders the options of a choice are listed, for a mean over them; 0 lists none.
        order_by: several orders are "views" over the same option blocks, or each is "encoded" anew.
        sees: "earlier" tells each question the answers to those before it.
        prior: divide by what is answered about states that say nothing.
        calibration: temperatures, of ``fit``; it says how questions are asked in place of the arguments above.
        budget: no limit by default. thinking: what a chat template with a switch for it is told; by default not to.
        kept: where a state that is a text is looked for encoded, and kept, on disk: ``KeptBlocks()`` is the user's
            cache folder. None: nowhere. trace, listener: as for ``arun``.

    Raises:
        BadRequest: a question or state that cannot be asked; the message names it.
        OutOfPages: the cache has no room for one question.
    """
    given = [questions] if isinstance(questions, str | Question) else questions
    if isinstance(given, Mapping):
        given = read_questions(given)
    asked = named([one for part in given for one in (read_questions([part]) if isinstance(part, Mapping) else [part])])
    about = seen_or_read(state)
    if thinking is None:
        with suppress(BadRequest):  # a template without a switch
            thinking = False if thinking_switches(engine.tokenizer, False) else None
    way: Way = {"orders": orders, "order_by": order_by, "prior": prior}
    result = await arun(
        engine,
        decide,
        Task("(what a view shows)" if isinstance(about, View) else about),
        budget=budget or Budget(),
        thinking=thinking,
        kept=kept,
        trace=trace,
        listener=listener,
        questions=[as_json(question) for question in asked],
        sees=sees,
        state=about if isinstance(about, View) else None,  # type: ignore[arg-type]  # no value of JSON
        calibration=None if calibration is None else calibration.as_json(),
        **(way if calibration is None else calibration.way),
    )
    found: Decisions = result.product
    return found
