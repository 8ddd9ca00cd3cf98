"""A conversation in which a question may be asked while others are being answered: each answer is a row, side by side.

    turn 1   [ documents ][ opening ][ turn 1 ]
    turn 2   [ documents ][ opening ][ turn 1 ][ turn 2 ]        asked when turn 1 was over
    turn 3   [ documents ][ opening ][ turn 1 ][ turn 3 ]        asked while turn 2 is being answered

Each turn is a block of its own, question and answer, which later turns see where it was written: nothing is encoded
twice. A turn sees those that were over when it was asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kvorum.engine.text import encode as text_ids
from kvorum.errors import OutOfPages
from kvorum.harness.shared_text import encode, most_tokens, quoted_ids, share_texts, turn_ids
from kvorum.kv import Block, View
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker

READ = "I will ask about this text."
READY = "Go ahead."
GREETING = "Hello."


@dataclass(slots=True, eq=False)
class TalkTurn:
    """One question and what has been answered so far. ``finish``: "" while it is being answered, then "end", "length",
    "loop" (it went on in circles) or "cut"; ``seconds``: from its question to its last token."""

    number: int
    question: str
    text: str = ""
    finish: str = ""
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)


class Talk(Protocol):
    """Who asks. All of it is called between ticks, on the run's own thread."""

    def next(self, *, wait: bool) -> str | None:
        """The next question; None: the conversation is over, or, unless ``wait``, there is none yet."""

    def over(self) -> bool:
        """Whether the conversation is over, whatever is being answered."""

    def stopped(self) -> bool:
        """Whether answers that are being written shall end; asking takes the wish back."""

    def show(self, turn: TalkTurn) -> None:
        """A turn has begun, grown, or ended."""

    def say(self, words: str) -> None:
        """Something that is no answer, such as why a question cannot be asked."""


async def converse(run: Run, talk: Talk, texts: Mapping[str, str], *, tokens: int) -> None:
    """Answer what ``talk`` asks, at most ``tokens`` tokens each, behind ``texts``, until it is over.

    Raises:
        BadRequest: the texts are too long for the model or the cache. Spent: the budget is used up.
    """
    run.loops = "end"
    base = await _opening(run, texts, tokens)
    after, behind = run.state.prompt(None)["around"]
    tokenizer = run.engine.tokenizer
    around = (text_ids(tokenizer, after), text_ids(tokenizer, behind))
    history: list[tuple[TalkTurn, Block]] = []
    active: list[tuple[TalkTurn, Worker]] = []
    count = 0
    while not talk.over() and not run.spent:
        question = talk.next(wait=not active)
        if question is not None:
            seen = [block for turn, block in history if turn.finish]
            ids = [*around[0], *quoted_ids(run, question), *around[1]]
            begun = await _begin(run, talk, View(*base, *seen, run.block(f"turn {count + 1}")), ids, tokens, count)
            if begun is not None:
                count += 1
                turn = TalkTurn(count, question)
                active.append((turn, begun))
                history.append((turn, begun.own))
                talk.show(turn)
            continue
        if not active:
            continue
        await run.tick([worker for _, worker in active])
        stopped = talk.stopped()
        for turn, worker in active:
            turn.text, turn.seconds = worker.text, time.perf_counter() - turn.started
            if worker.ids[-1] in run.ends:
                turn.finish = "end"
            elif len(worker.ids) >= tokens:
                turn.finish = "length"
            elif stopped:
                turn.finish = "cut"
            elif not worker.active:
                turn.finish = "loop"
            if turn.finish:
                worker.own.seal()
            talk.show(turn)
        active = [(turn, worker) for turn, worker in active if not turn.finish]


async def _opening(run: Run, texts: Mapping[str, str], tokens: int) -> list[Block]:
    """Texts, then the end of the user's first turn and the assistant's word for it, which every turn closes."""
    first, behind = turn_ids(run)
    blocks: list[Block] = []
    if texts:
        shared = await share_texts(run, texts, room=tokens)
        blocks, first = list(shared.blocks), []
    opening = run.block("opening")
    words = quoted_ids(run, READ if texts else GREETING)
    await encode(run, View(*blocks, opening), [*first, *words, *behind, *run.encode(READY)])
    return [*blocks, opening.seal()]


async def _begin(run: Run, talk: Talk, view: View, ids: list[int], tokens: int, count: int) -> Worker | None:
    """A worker that is about to answer; None where there is no room, which is said."""
    _most, words = most_tokens(run.engine, len(ids) + tokens)
    longest = run.engine.shape.longest
    own = view.own
    assert own is not None
    try:
        own.reserve(len(ids) + tokens)
        fits = longest is None or len(view) + len(ids) + tokens <= longest
    except OutOfPages:
        fits = False
    if not fits:
        talk.say(
            f"This question and its answer need {len(ids) + tokens:,} tokens behind the {len(view):,} of the "
            f"conversation, more than {words}: begin a new one, or ask for shorter answers."
        )
        return None
    worker = run.add_worker(f"turn {count + 1}")
    worker.view = view
    if len(ids) > run.engine.prefill_chunk:
        await encode(run, view, ids[:-1])
        ids = ids[-1:]
    worker.feed(ids)
    return worker
