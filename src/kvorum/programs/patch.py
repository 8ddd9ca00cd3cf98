"""Texts that were each read alone, put one behind the other, of which a part is read again: an answer from all of them.

    texts    [ opening ][ A ]    [ opening ][ B ]    each as if it were the only one, and kept as such
    answer   [ opening ][ A ][ B, patched ][ question ][ own ]

EPIC (arXiv 2410.15332) reads the first tokens of each text again, CacheBlend (2405.16444) those that deviate most.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from kvorum.engine.rereading import apart
from kvorum.engine.row import Cost, Row
from kvorum.errors import BadRequest
from kvorum.harness.chain_of_thought import write
from kvorum.harness.patches import patch as read_again
from kvorum.harness.shared_text import check_room, document_texts, keep, load_or_encode, quoted_ids, turn_ids
from kvorum.harness.text_blocks import TextBlocks
from kvorum.jsontypes import Json
from kvorum.kv import Block, View
from kvorum.programs.ask.prompts import RULES, question_text
from kvorum.runs.annotations import Help, PositiveInt
from kvorum.runs.parameters import Value
from kvorum.runs.program import program
from kvorum.runs.run import Run

Reread = Literal["first", "most", "all", "none"]
EVERY: dict[str, dict[str, Json]] = {
    "none": {"reread": "none"},
    "first 8": {"reread": "first", "first": 8},
    "first 32": {"reread": "first", "first": 32},
    "most 5%": {"reread": "most", "share": 0.05},
    "most 15%": {"reread": "most", "share": 0.15},
    "most 30%": {"reread": "most", "share": 0.3},
    "all": {"reread": "all"},
}
"""How much is read again, as a study compares it."""


@dataclass(frozen=True, slots=True)
class Patched:
    """What moving the texts took and cost: the product of a run.

    ``moved``: tokens of all texts but the first, ``again`` of them were read again, in ``seconds``. ``loaded``: tokens
    of all texts that were kept from before. With ``compare``, of the first token of the answer: ``divergence`` of its
    distribution from that behind a full prefill (KL, in nats), and whether both would write the ``same`` one.
    """

    moved: int
    again: int
    seconds: float
    loaded: int
    divergence: float | None = None
    same: bool | None = None

    def measures(self) -> dict[str, float | None]:
        """What a study notes of it."""
        share = self.again / self.moved if self.moved else 0.0
        same = None if self.same is None else float(self.same)
        return {"read again": share, "KL": self.divergence, "same first token": same, "seconds": self.seconds}


def can_be_patched(workers: int, *, documents: Mapping[str, str] | None, **_: Value) -> None:
    """Raises BadRequest for an empty document."""
    for name, words in (documents or {}).items():
        if not words.strip():
            raise BadRequest(f"The document {name} is empty; leave it out.")


@program(
    "patch",
    "texts that were each read alone, side by side: how much of them is read again",
    most_workers=1,
    exchange="independent",
    own_tasks=True,
    channels=EVERY,
    real="all",
    together=can_be_patched,
)
async def patch(
    run: Run,
    *,
    documents: Mapping[str, str] | None = None,
    reread: Reread = "first",
    first: Annotated[int, Help(low=1)] = 32,
    share: Annotated[float, Help(low=0, high=1)] = 0.15,
    tokens: PositiveInt = 256,
    rules: str | None = None,
    begins: str = "",
    compare: bool = False,
) -> str | None:
    """Answer the problem, a question, from texts that were each encoded alone and stand one behind the other.

    A text that is kept is loaded wherever it stands, whatever stands before it. Of every text but the first a part is
    read again in its place; the rest carries what it has read, which is the opening alone.

    Args:
        documents: The texts to answer from, by name, in their order.
        reread: What is read again; the first tokens of each text, those that deviate most, all of them or none.
        first: So many tokens, with reread=first.
        share: So much of each text, with reread=most; which deviate is told by a full read, so nothing is saved by it.
        tokens: The most tokens of the answer.
        rules: What the question is told of how to answer; by default briefly and from the text alone.
        begins: What the answer begins with; by default nothing.
        compare: Read all texts as one too, and say how far the first token of the answer is from what follows there.
    """
    worker = run.workers[0]
    texts = await TextBlocks.begin(run)
    words = document_texts(documents or {}, {})
    behind = turn_ids(run)[1]
    asked = question_text(run.task.prompt, RULES if words and rules is None else rules or "")
    question = [*quoted_ids(run, asked), *behind, *run.encode(begins)]
    check_room(
        run, len(texts.opening) + sum(len(quoted_ids(run, one)) for one in words.values()), len(question) + tokens
    )
    alone = [await texts.block(text, name) for name, text in words.items()]
    whole = await _whole(run, texts.opening, alone) if reread == "most" else []
    placed = alone[:1]
    again, began = 0, 0.0
    for at, block in enumerate(alone[1:], 1):
        chosen = _chosen(run, reread, first, share, block, whole[at] if whole else None)
        start = time.perf_counter()
        placed.append(await read_again(run, block, View(texts.opening, *placed), chosen) if chosen else block)
        again, began = again + len(chosen), began + time.perf_counter() - start
        if compare and reread == "all":  # which is how a full prefill has it, bit for bit
            keep(run, [token for one in (texts.opening, *placed[:-1]) for token in one.ids], placed[-1])
    moved = sum(map(len, alone[1:]))
    run.note("patched", moved=moved, again=again)
    worker.view = View(texts.opening, *placed, run.block(worker.name))
    kl, same = None, None
    if compare:
        whole = whole or await _whole(run, texts.opening, alone)
        known, _ = await load_or_encode(run, [texts.opening, *whole], question[:-1], "question in full")
        await run.prefill(worker.view, question[:-1])
        kl, same = await _apart(run, worker.view, View(texts.opening, *whole, known), question[-1:])
    run.product = Patched(moved, again, began, texts.loaded, kl, same)
    worker.feed(question[-1:] if compare else question)
    await write(run, [worker], tokens)
    if run.spent and worker.active and len(worker.ids) < tokens:
        run.outcome = "cut"
    return (begins + worker.text).strip() if worker.text.strip() else None


def _chosen(run: Run, reread: Reread, first: int, share: float, block: Block, full: Block | None) -> Sequence[int]:
    """Which tokens of a text are read again."""
    if reread == "most" and full is not None:
        found: list[int] = apart(run.engine.backend, block, full).topk(round(share * len(block))).indices.tolist()
        return found
    return range({"none": 0, "first": min(first, len(block))}.get(reread, len(block)))


async def _whole(run: Run, opening: Block, alone: Iterable[Block]) -> list[Block]:
    """The texts as a full prefill has them, each behind all before it."""
    found: list[Block] = []
    for block in alone:
        found.append(
            (await load_or_encode(run, [opening, *found], block.ids, f"{block.name} in full"))[0] if found else block
        )
    return found


async def _apart(run: Run, view: View, full: View, last: Sequence[int]) -> tuple[float, bool]:
    """How far what follows ``last`` in the first view is from what follows it in the second; both stay as they are."""
    rows = [Row(one.fork(len(one), run.block("last")), ids=last) for one in (view, full)]
    logits = (await run.forward(rows, [Cost(0)] * 2)).output.logits
    own, wanted = logits.cpu().double().log_softmax(-1)
    return float((wanted.exp() * (wanted - own)).sum()), int(own.argmax()) == int(wanted.argmax())
