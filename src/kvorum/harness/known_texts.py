"""What workers know from outside of their task: entries of a memory and skills, as blocks in views and as tools.

What was recalled and which skills there were is recorded in the trace when it is first looked up. A replay opens no
memory and reads no folder; a run that is gone on with opens them when a tool is first called that needs them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.harness.decisions.decide import decide
from kvorum.harness.memory.blocks import memory_blocks, memory_words
from kvorum.harness.memory.memory import Memory
from kvorum.harness.memory.policy import policy
from kvorum.harness.memory.tools import memory_tools
from kvorum.harness.shared_text import quoted_ids
from kvorum.harness.skills.disclosure import NONE, body_text, catalogue, skill_question
from kvorum.harness.skills.find import Place, Skills, find_skills
from kvorum.harness.skills.skill import Skill
from kvorum.harness.skills.tools import skill_tools
from kvorum.harness.text_blocks import TextBlocks
from kvorum.harness.tools.tool import Tool
from kvorum.jsontypes import Json
from kvorum.kv import Block
from kvorum.runs.run import Run
from kvorum.store.memory.entries import Entry, Recalled, check_namespace

ACTIVATE = "use_skill"


class KnownTexts:
    """The memory and the skills of a run; made by ``open``.

    ``recalled``: what of the memory stands in views. ``skills``: those that there are. ``on``: those that are in use,
    in the order in which they came.
    """

    def __init__(self, run: Run, memory: Memory | None, recalled: Recalled, skills: Skills, bodies: dict[str, str]):
        self.memory, self.recalled, self.skills = memory, recalled, skills
        self.on: list[str] = []
        self._run, self._bodies = run, bodies

    @classmethod
    async def open(
        cls,
        run: Run,
        *,
        namespace: str = "",
        who_writes: str = "model",
        recall: int = 8,
        query: str = "",
        folders: Sequence[str] = (),
    ) -> KnownTexts:
        """Look up what there is.

        Args:
            namespace: of the memory; "": none. who_writes: the policy under which workers write it. recall: the most
                entries that stand in views. query: what they are found by. folders: of skills.

        Raises:
            BadRequest: the namespace cannot be, or a folder holds no skill that can be used. UnknownName: the policy.
            StoreFailed: the memory cannot be opened.
        """
        memory = Memory(namespace=check_namespace(namespace), policy=policy(who_writes)) if namespace else None
        recalled = Recalled([]) if memory is None else await _recall(run, memory, query, recall)
        skills, bodies = await _find(run, folders) if folders else (Skills(), {})
        return cls(run, memory, recalled, skills, bodies)

    def limited(self, names: Sequence[str]) -> KnownTexts:
        """What a worker knows who may use these skills alone, and has none of them in use.

        Raises:
            BadRequest: there is no such skill.
        """
        found = [self.skills.get(name) for name in names]
        return KnownTexts(self._run, self.memory, self.recalled, Skills({one.name: one for one in found}), self._bodies)

    async def begin_with(self, names: Sequence[str], *, decide_one: bool = False) -> None:
        """Have these skills in use from the beginning, by hand, and the one that a decision picks for the task, if any.

        Raises:
            BadRequest: there is no such skill. OutOfPages: no room to decide.
        """
        for name in [self.skills.get(name).name for name in names]:
            if name not in self.on:
                self.on.append(name)
        others = [skill for skill in self.skills.found.values() if skill.name not in self.on]
        if decide_one and others:
            decided = await decide(self._run, self._run.task.prompt, [skill_question(others)])
            self.on += [one.label for one in decided if one.label != NONE]

    @property
    def any(self) -> bool:
        """Whether there is a memory or a skill at all."""
        return self.memory is not None or bool(self.skills.found)

    def tools(self, who: str, scripts: Sequence[str] = ()) -> list[Tool]:
        """The tools of a worker of that name: of the memory as its policy has it, of skills where there are some.

        ``scripts``: skills whose scripts may run, each behind a person's word.
        """
        found: list[Tool] = []
        if self.memory is not None:
            found += memory_tools(self.memory.written_by(self.memory.policy, who))
        is_on = self.on.__contains__
        return [*found, *skill_tools(self.skills, lambda name: name not in self.on, is_on, scripts=scripts)]

    @property
    def words(self) -> list[str]:
        """What stands in views from the beginning, as texts: the catalogue of skills, then what is remembered."""
        words = catalogue(self.skills.found.values())
        return [*([words] if words else []), *memory_words(self.recalled)]

    async def blocks(self, texts: TextBlocks) -> list[Block]:
        """The same as blocks."""
        found = [await texts.block(catalogue(self.skills.found.values()), "skills")] if self.skills.found else []
        fresh = None if self._run.state.replaying else self.memory
        return [*found, *await memory_blocks(texts, fresh, self.recalled)]

    def switched_on(self, tool: str, arguments: str, status: str) -> str:
        """The skill that a call has switched on, from now on in use; "" where it has not."""
        if tool != ACTIVATE or status != "ok":
            return ""
        name = self.skills.get(str(json.loads(arguments)["name"])).name
        if name in self.on:
            return ""
        self.on.append(name)
        return name

    def text(self, name: str) -> str:
        """A skill's body."""
        return self._bodies[name]

    def length(self, name: str) -> int:
        """How many tokens a skill's body has."""
        return len(quoted_ids(self._run, self._bodies[name]))

    async def body(self, texts: TextBlocks, name: str) -> Block:
        """A skill's body as a block, encoded once. Raises OutOfPages, Spent."""
        return await texts.block(self._bodies[name], f"skill {name}")


async def _recall(run: Run, memory: Memory, query: str, most: int) -> Recalled:
    """What is remembered about ``query``, the newest where nothing is found by its words; told in the trace."""

    async def ask() -> dict[str, Json]:
        found = memory.recall(query, limit=most) if most else Recalled([])
        if not found.entries and most:
            found = memory.recall(limit=most)
        return {"entries": [asdict(entry) for entry in found.entries], "missing": found.missing}

    told = await run.outside("recall", ask)
    entries, missing = told["entries"], told["missing"]
    assert isinstance(entries, list)
    assert isinstance(missing, int)
    return Recalled([_entry(one) for one in entries if isinstance(one, dict)], missing)


def _entry(told: dict[str, Json]) -> Entry:
    moment, before = told["time"], told["supersedes"]
    return Entry(
        id=str(told["id"]),
        text=str(told["text"]),
        source=str(told["source"]),
        time=float(moment) if isinstance(moment, int | float) else 0.0,
        namespace=str(told["namespace"]),
        supersedes=None if before is None else str(before),
    )


async def _find(run: Run, folders: Sequence[str]) -> tuple[Skills, dict[str, str]]:
    """The skills of these folders and their bodies by name; told in the trace."""

    async def ask() -> list[Json]:
        skills = find_skills([Place(Path(folder)) for folder in folders])
        if not skills.found:
            why = f" {skills.warnings[0]}" if skills.warnings else " A skill is a folder with a SKILL.md in it."
            raise BadRequest(f"There is no skill in {', '.join(folders)} that can be used.{why}")
        return [
            {
                "name": skill.name,
                "description": skill.description,
                "body": body_text(skill),
                "folder": str(skill.folder.resolve()),
            }
            for skill in skills.found.values()
        ]

    told = [one for one in await run.outside("skills", ask) if isinstance(one, dict)]
    made = [Skill(str(one["name"]), str(one["description"]), "", Path(str(one["folder"]))) for one in told]
    return Skills({one.name: one for one in made}), {str(one["name"]): str(one["body"]) for one in told}
