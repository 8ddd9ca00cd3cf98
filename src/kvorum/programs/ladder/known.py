"""What the worker of a ladder is given: notes of earlier sessions from a real memory, skills from real folders.

Both are looked up once and recorded, so that a replay opens neither. Their texts are blocks that have read nothing but
the opening; every run that needs the same one loads it from disk, where the run keeps any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

from kvorum.errors import BadRequest
from kvorum.harness.decisions.decide import decide
from kvorum.harness.memory.blocks import memory_words
from kvorum.harness.memory.memory import Memory
from kvorum.harness.memory.policy import policy
from kvorum.harness.pieces import Piece, write
from kvorum.harness.shared_text import quoted_ids, turn_ids
from kvorum.harness.skills.disclosure import NONE, body_text, catalogue, skill_question
from kvorum.harness.skills.find import Place, find_skills
from kvorum.harness.skills.skill import FILE, Skill
from kvorum.harness.text_blocks import TextBlocks
from kvorum.jsontypes import Json
from kvorum.kv import View
from kvorum.runs.run import Run
from kvorum.sampling.grammar import Grammar
from kvorum.sampling.sampling import Sampling
from kvorum.store.memory.entries import Entry

Selection: TypeAlias = Literal["none", "needed", "other", "decided", "written", "zeroed"]
"""Which skill stands in the view: none; the needed one, another one as long, or one that is chosen by a decision or
written by the model; the needed one with nothing in its keys and values."""
WHICH = "Which skill does this task need? Answer with its name alone.\nTask: "


@dataclass(frozen=True, slots=True)
class Found:
    """What there is: the ``texts`` of the memory, oldest first, and the ``skills`` with their ``bodies`` by name."""

    texts: Sequence[str]
    skills: Sequence[Skill]
    bodies: Mapping[str, str]


async def look_up(
    run: Run, notes: Sequence[Mapping[str, Json]], skills: Sequence[Mapping[str, Json]], *, stale: bool, most: int
) -> Found:
    """Remember the notes one after the other, and recall what the task reminds of; read the skills' folders.

    ``stale``: what corrects a note never came to the memory. ``most``: so many entries are recalled.
    """
    query = run.task.prompt

    async def ask() -> dict[str, Json]:
        with TemporaryDirectory() as folder:
            place = Path(folder)
            return {
                "memory": list(_recall(place, notes, query, stale, most)),
                "skills": _read(place / "skills", skills),
            }

    told = await run.outside("ladder", ask)
    texts, found = told["memory"], told["skills"]
    assert isinstance(texts, list)
    assert isinstance(found, dict)
    made = [Skill(str(one["name"]), str(one["description"]), "", Path()) for one in skills]
    return Found([str(text) for text in texts], made, {str(name): str(body) for name, body in found.items()})


async def recall_own(
    run: Run, notes: Mapping[str, Sequence[Mapping[str, Json]]], *, stale: bool, most: int
) -> dict[str, str]:
    """What workers recall of their own notes, by their names, each from a memory of its own; "" for nothing."""

    async def ask() -> dict[str, Json]:
        with TemporaryDirectory() as folder:
            return {
                name: "".join(_recall(Path(folder), told, "", stale, most, f"worker-{at}"))
                for at, (name, told) in enumerate(notes.items())
            }

    told = await run.outside("memories", ask)
    return {name: str(text) for name, text in told.items()}


def _recall(
    folder: Path, notes: Sequence[Mapping[str, Json]], query: str, stale: bool, most: int, owner: str = "ladder"
) -> Sequence[str]:
    """The words of the entries that are recalled, with their heading; ``owner``: whose they are."""
    from kvorum.store.memory.store import MemoryStore  # and SQLAlchemy, which others do without

    memory = Memory(MemoryStore(folder / "memory.sqlite"), namespace=owner, policy=policy("program"))
    known: dict[str, Entry] = {}
    for note in notes:
        text, corrects = str(note["text"]), str(note.get("corrects") or "")
        if corrects and stale:
            continue
        old = known.get(corrects) if note.get("replaces") else None
        known[text] = memory.remember(text) if old is None else memory.update(old.id, text)
    found = memory.recall(query, limit=most) if query else None
    return memory_words(found if found is not None and found.entries else memory.recall(limit=most))


def _read(folder: Path, skills: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """The bodies of skills by name, as they are read from folders of theirs."""
    for one in skills:
        place = folder / str(one["name"])
        place.mkdir(parents=True)
        head = f"---\nname: {one['name']}\ndescription: {one['description']}\n---\n"
        (place / FILE).write_text(f"{head}{one['body']}\n", encoding="utf-8")
    return {name: body_text(skill) for name, skill in find_skills([Place(folder)]).found.items()}


async def select(run: Run, texts: TextBlocks, found: Found, selection: Selection, *, needed: str, other: str) -> str:
    """The name of the skill that stands in the view; "" for none. Raises BadRequest: there is no skill of that name."""
    fixed = {"none": "", "needed": needed, "zeroed": needed, "other": other}
    name = fixed.get(selection)
    if selection == "decided":
        decisions = await decide(run, run.task.prompt, [skill_question(found.skills)])
        name = decisions[0].label if decisions else ""
    elif selection == "written":
        name = await _written(run, texts, found)
    if name and name != NONE and name not in found.bodies:
        raise BadRequest(f"There is no skill {name!r}; the skills are: {', '.join(found.bodies) or 'none'}.")
    return "" if name is None or name == NONE else name


async def _written(run: Run, texts: TextBlocks, found: Found) -> str:
    """What the model names behind the catalogue, held to the names that there are."""
    worker = run.add_worker("Selector")
    worker.view = View(texts.opening, await texts.block(catalogue(found.skills), "skills"), run.block("select"))
    worker.feed([*quoted_ids(run, f"{WHICH}{run.task.prompt}"), *turn_ids(run)[1]])
    piece = Piece(worker, Sampling(grammar=Grammar.choice([*found.bodies, NONE])), tokens=24)
    await write(run, [piece])
    worker.view = View()
    return piece.text
