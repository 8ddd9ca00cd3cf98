"""One worker that answers from memory, by a skill, under a protocol; each of the three can be taken away or falsified.

    view   [ opening ][ skill ][ memory ][ question, form ][ own ]

All but the question are blocks that have read the opening alone, so an arm without one of them differs by that block.
It answers what Zhou et al. (arXiv 2604.08224) leave open: what each of the three is worth, on the same items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kvorum.harness.pieces import Piece, write
from kvorum.harness.protocols.messages import Message
from kvorum.harness.shared_text import quoted_ids, turn_ids
from kvorum.harness.text_blocks import TextBlocks
from kvorum.jsontypes import Json
from kvorum.kv import Block, View
from kvorum.programs.ladder.known import Selection, look_up, select
from kvorum.runs.annotations import PositiveInt
from kvorum.runs.program import program
from kvorum.runs.run import Run


@dataclass(frozen=True, slots=True)
class Climbed:
    """What an answer was made with: the product of a run.

    ``skill``: the name of the skill in the view, ``right`` whether it is the needed one; None: there was nothing to
    choose. ``finish``: how the answer ended.
    """

    skill: str
    right: bool | None
    finish: str

    def measures(self) -> dict[str, float | None]:
        """What a study notes of it."""
        right = None if self.right is None else float(self.right)
        return {"right skill": right, "cut": float(self.finish == "length")}


@program(
    "ladder",
    "one worker with memory, a skill and a protocol, each of which can be taken away",
    most_workers=1,
    listens=False,
    own_tasks=True,
    channels={"none": {}},
)
async def ladder(
    run: Run,
    *,
    memory: Literal["none", "recalled", "stale", "zeroed"] = "recalled",
    skill: Selection = "needed",
    protocol: Literal["free", "told", "typed"] = "typed",
    notes: Sequence[Mapping[str, Json]] = (),
    skills: Sequence[Mapping[str, Json]] = (),
    needed: str = "",
    other: str = "",
    message: Mapping[str, Json] | None = None,
    message_words: str = "Answer briefly.",
    words: str = "Answer briefly.",
    recall: PositiveInt = 4,
    tokens: PositiveInt = 32,
) -> str | None:
    """Answer the problem, a question, behind what is remembered, a skill and a form.

    An answer that is cut at its most tokens is none.

    Args:
        memory: Nothing is remembered; what the question reminds of is recalled; the same without what corrected it; or
            its blocks hold nothing.
        skill: None; the needed one; another one; one that is chosen by a decision or written by the model; or the
            needed one whose block holds nothing.
        protocol: Plain words; a typed message that is asked for; or one that is asked for and enforced.
        notes: What was told before, oldest first; of each its text, what it corrects, and whether it replaces that.
        skills: Those that there are; of each its name, description and body.
        needed: The name of the skill that the question takes.
        other: The name of another one.
        message: The typed message, a JSON schema of an object.
        message_words: How that message is asked for.
        words: How an answer in plain words is asked for.
        recall: The most entries that are recalled.
        tokens: The most tokens of the answer.
    """
    worker = run.workers[0]
    found = await look_up(run, notes, skills, stale=memory == "stale", most=recall)
    texts = await TextBlocks.begin(run)
    name = await select(run, texts, found, skill, needed=needed, other=other)
    blocks: list[Block] = []
    if name:
        body = await texts.block(found.bodies[name], "skill")
        blocks.append(run.imitate(body, "zeroed", seed=0) if skill == "zeroed" else body)
    if memory != "none":
        remembered = [await texts.block(text, "memory") for text in found.texts]
        blocks += [run.imitate(one, "zeroed", seed=0) if memory == "zeroed" else one for one in remembered]
    worker.view = View(texts.opening, *blocks, run.block(worker.name))
    form = words if protocol == "free" else message_words
    worker.feed([*quoted_ids(run, f"\n{run.task.prompt} {form}"), *turn_ids(run)[1]])
    sampling = run.sampling
    if protocol == "typed" and message is not None:
        sampling = replace(sampling, grammar=Message.of("answer", message).grammar)
    piece = Piece(worker, sampling, tokens=tokens)
    await write(run, [piece])
    if worker.failed is not None:
        raise worker.failed
    chosen = name == needed if skill in ("decided", "written") else None
    run.product = Climbed(name, chosen, piece.finish or "cut")
    if piece.finish not in ("end", "grammar"):
        run.outcome = "cut"
        return None
    return piece.text.strip() or None
