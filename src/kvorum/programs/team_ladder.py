"""A team on a graph that works by memory, a skill and a protocol; each of the three can be taken away or falsified.

    turn   [ opening, goal ][ skill ][ own memory ][ who one is, what neighbours wrote, form ][ own ]

As ``ladder`` for one worker. Every turn is a fresh view, so that without a memory nobody knows at a turn what it had
or wrote before: it hears what its neighbours wrote last, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

from kvorum.harness.pieces import Piece, write
from kvorum.harness.protocols.messages import Message
from kvorum.harness.protocols.protocol import Protocol
from kvorum.harness.shared_text import quoted_ids, turn_ids
from kvorum.harness.text_blocks import TextBlocks
from kvorum.jsontypes import Json
from kvorum.kv import Block, View
from kvorum.programs.ladder.known import Selection, look_up, recall_own, select
from kvorum.programs.ladder.ladder import Climbed
from kvorum.runs.annotations import PositiveInt
from kvorum.runs.program import program
from kvorum.runs.run import Run
from kvorum.wording import check_known


@program(
    "team_ladder",
    "a team on a graph with memory, a skill and a protocol, each of which can be taken away",
    workers=4,
    least_workers=4,
    most_workers=4,
    listens=False,
    exchange="messages",
    own_tasks=True,
    channels={"text": {}},
)
async def team_ladder(
    run: Run,
    *,
    memory: Literal["none", "recalled", "stale", "zeroed"] = "recalled",
    skill: Selection = "needed",
    protocol: Literal["free", "told", "typed"] = "typed",
    neighbours: Mapping[str, Sequence[str]] | None = None,
    ranks: bool = False,
    has: Mapping[str, str] | None = None,
    begins: Mapping[str, str] | None = None,
    request: str = "",
    rounds: PositiveInt = 2,
    skills: Sequence[Mapping[str, Json]] = (),
    needed: str = "",
    other: str = "",
    message: Mapping[str, Json] | None = None,
    message_words: str = "Answer briefly.",
    words: str = "Answer briefly.",
    recall: PositiveInt = 4,
    tokens: PositiveInt = 24,
) -> str | None:
    """Everybody writes to its neighbours for some rounds; what it writes after the last is its answer.

    The answer is JSON: ``answers``, what each wrote last, without those that were cut at their most tokens.

    Args:
        memory: Nothing is remembered; what one began with and wrote last; only what one began with; or its block holds
            nothing.
        skill: None; the needed one; another one; one that is chosen by a decision or written by the model; or the
            needed one whose block holds nothing.
        protocol: Plain words; a typed message that is asked for; or one that is asked for and enforced.
        neighbours: By worker the names of those that it hears; by default the two beside it in a ring.
        ranks: Workers are told which of their neighbours stand above them, before them in the order of workers.
        has: What a worker is told at every turn of what it has.
        begins: What a worker is told in the first round alone.
        request: What is asked for at every turn.
        rounds: How often everybody hears its neighbours.
        skills: Those that there are; of each its name, description and body.
        needed: The name of the skill that the problem takes.
        other: The name of another one.
        message: The typed message, a JSON schema of an object.
        message_words: How that message is asked for.
        words: How plain words are asked for.
        recall: The most entries that are recalled.
        tokens: The most tokens that are written at a turn.

    Raises:
        UnknownName, BadRequest: a neighbour is no worker; there is no skill of that name.
    """
    team = list(run.workers)
    names = [worker.name for worker in team]
    heard_by = _heard(names, neighbours)
    found = await look_up(run, (), skills, stale=False, most=recall)
    texts = await TextBlocks.begin(run, run.task.prompt)
    chosen = await select(run, texts, found, skill, needed=needed, other=other)
    body: list[Block] = []
    if chosen:
        block = await texts.block(found.bodies[chosen], "skill")
        body = [run.imitate(block, "zeroed", seed=0) if skill == "zeroed" else block]
    form = words if protocol == "free" else message_words
    sampling = run.sampling
    if protocol == "typed" and message is not None:
        sampling = replace(sampling, grammar=Message.of("message", message).grammar)
    place = {name: at for at, name in enumerate(names)}
    written: list[dict[str, str]] = []
    finish: dict[str, str] = {}

    def told(name: str) -> str:
        """What a worker reads at a turn."""
        here = [f"You are {name}.", str((has or {}).get(name, ""))]
        if written:
            for other in heard_by[name]:
                where = f" {'above' if place[other] < place[name] else 'below'} you" * ranks
                here.append(f"{other}{where} wrote: {written[-1][other]}")
        else:
            here.append(str((begins or {}).get(name, "")))
        return "\n".join(["", *(line for line in here if line), f"{request} {form}"])

    async def remembered() -> Mapping[str, Sequence[Block]]:
        """The block of each worker's memory."""
        if memory == "none" or not written:
            return {}
        own = {name: _notes(str((begins or {}).get(name, "")), [round_[name] for round_ in written]) for name in names}
        entries = await recall_own(run, own, stale=memory == "stale", most=recall)
        blocks = {name: await texts.block(text, "memory") for name, text in entries.items() if text}
        if memory == "zeroed":
            return {name: [run.imitate(one, "zeroed", seed=0)] for name, one in blocks.items()}
        return {name: [one] for name, one in blocks.items()}

    async def turn() -> str:
        known = await remembered()
        end = turn_ids(run)[1]
        for worker in team:
            worker.view = View(texts.opening, *body, *known.get(worker.name, ()), run.block(worker.name))
            worker.feed([*quoted_ids(run, told(worker.name)), *end])
        pieces = [Piece(worker, sampling, tokens=tokens) for worker in team]
        await write(run, pieces)
        for piece in pieces:
            if piece.worker.failed is not None:
                raise piece.worker.failed
            finish[piece.worker.name] = piece.finish or "cut"
        written.append({piece.worker.name: piece.text.strip() for piece in pieces})
        run.note("wrote", n=len(written), words=written[-1])
        return "on" if run.spent is None else "over"

    await Protocol({"turn": {"on": "turn"}}, "turn", rounds + 1).play({"turn": turn})
    right = chosen == needed if skill in ("decided", "written") else None
    whole = {name: text for name, text in written[-1].items() if finish[name] in ("end", "grammar")}
    run.product = Climbed(chosen, right, "end" if len(whole) == len(names) else "length")
    return json.dumps({"answers": whole}, ensure_ascii=False)


def _heard(names: Sequence[str], neighbours: Mapping[str, Sequence[str]] | None) -> Mapping[str, Sequence[str]]:
    """By worker the names of those that it hears. Raises UnknownName: one of them is no worker."""
    if neighbours is None:
        return {name: [names[at - 1], names[(at + 1) % len(names)]] for at, name in enumerate(names)}
    for name in [*neighbours, *chain.from_iterable(neighbours.values())]:
        check_known("worker", str(name), names)
    return {name: neighbours.get(name, ()) for name in names}


def _notes(begins: str, wrote: Sequence[str]) -> list[dict[str, Json]]:
    """What a worker is to remember, oldest first: what it began with, and what it ``wrote``, the later for the earlier.

    A memory takes no control characters, which a model may write.
    """
    notes: list[dict[str, Json]] = [{"text": begins}] if begins else []
    before, replaces = begins, False
    for at, words in enumerate(wrote):
        plain = "".join(mark if mark.isprintable() else " " for mark in words).strip()
        text = f"You wrote in round {at + 1}: {plain}"
        notes.append({"text": text, "corrects": before, "replaces": replaces})
        before, replaces = text, True
    return notes
