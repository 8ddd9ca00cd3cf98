"""What a model is told of skills, in three steps: the catalogue, a body, and what of a folder it asks for.

The texts are data, whoever wrote them: control characters are taken out, and none of them can close its own frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvorum.harness.decisions.questions import Choice, Option
from kvorum.harness.skills.find import Skills
from kvorum.harness.skills.skill import Skill
from kvorum.harness.text_blocks import TextBlocks
from kvorum.kv import Block
from kvorum.wording import harmless

HEADING = "Skills, each with what it is for:\n"
NONE = "none of them"


def catalogue(skills: Iterable[Skill]) -> str:
    """The first step: a line for each skill; "" for none, so that nothing is said of skills where there are none."""
    lines = [f"- {skill.name}: {' '.join(skill.description.split())}\n" for skill in skills]
    return HEADING + "".join(lines) if lines else ""


def body_text(skill: Skill) -> str:
    """The second step: its body in a frame with its name, and the names of its files."""
    body = harmless_body(skill.body)
    files = skill.files()
    listed = f"\nFiles of this skill: {', '.join(map(harmless, files))}\n" if files else ""
    return f'<skill name="{skill.name}">\n{body}\n{listed}</skill>\n'


def harmless_body(text: str) -> str:
    """Text without control characters and without what would end its frame."""
    lines = "\n".join(harmless(line) for line in text.split("\n"))
    return lines.replace("</skill", "< /skill").replace("<skill", "< skill")


def skill_question(skills: Iterable[Skill]) -> Choice:
    """Which skill a task needs, for ``engine.decide`` with the task as the state; its last option: none of them."""
    options = [Option(skill.name, " ".join(skill.description.split())) for skill in skills]
    return Choice("Which skill does this task need?", options=[*options, Option(NONE)])


class ActiveSkills:
    """The skills that are switched on in a run, each as a block that is encoded once.

    Whoever activates does so here: the model by its tool, a decision, the program, or a person. A body stays encoded
    when it is switched off, so that switching it on again costs nothing; none is put twice.
    """

    def __init__(self, texts: TextBlocks, skills: Skills) -> None:
        self.skills = skills
        self._texts = texts
        self._on: dict[str, Block] = {}

    @property
    def names(self) -> Sequence[str]:
        """Those that are on, in the order in which they were switched on."""
        return list(self._on)

    @property
    def blocks(self) -> Sequence[Block]:
        """Their bodies, in that order."""
        return list(self._on.values())

    async def catalogue(self) -> Sequence[Block]:
        """The catalogue as a block; none where there are no skills."""
        words = catalogue(self.skills.found.values())
        return [await self._texts.block(words, "skills")] if words else []

    async def switch_on(self, name: str) -> bool:
        """Put a body into views from now on; False where it is there already.

        Raises:
            BadRequest: there is no such skill. OutOfPages, Spent.
        """
        skill = self.skills.get(name)
        if skill.name in self._on:
            return False
        self._on[skill.name] = await self._texts.block(body_text(skill), f"skill {skill.name}")
        return True

    def switch_off(self, name: str) -> bool:
        """Take a body out of views; False where it is not there. Raises BadRequest: there is no such skill."""
        return self._on.pop(self.skills.get(name).name, None) is not None
