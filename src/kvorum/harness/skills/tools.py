"""Skills as tools of a model: it switches a skill on, reads a file of one that is on, and runs a script if it may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from kvorum.errors import BadRequest
from kvorum.harness.skills.find import Skills
from kvorum.harness.skills.scripts import LIMITS, ScriptLimits, run_script
from kvorum.harness.skills.skill import Skill
from kvorum.harness.tools.tool import Tool, closed_object, tool_from_schema
from kvorum.jsontypes import JsonObject

SKILL_TOOLS = ("use_skill", "read_skill_file", "run_skill_script")


def skill_tools(
    skills: Skills,
    switch_on: Callable[[str], Awaitable[bool] | bool],
    is_on: Callable[[str], bool],
    *,
    scripts: Collection[str] = (),
    limits: ScriptLimits = LIMITS,
) -> Sequence[Tool]:
    """The tools ``use_skill``, ``read_skill_file`` and, where some are allowed, ``run_skill_script``.

    Without skills there are none. Errors are results that the model reads.

    Args:
        switch_on: has the body stand in the caller's view; False where it does already. is_on: whether it does.
        scripts: names of the skills whose scripts may run; a person is asked before each of them.
    """
    names = list(skills.found)
    if not names:
        return ()

    async def use_skill(name: str) -> str:
        done = switch_on(skills.get(name).name)
        new = done if isinstance(done, bool) else await done
        return f"The skill {name} is {'now' if new else 'already'} in your context; follow it."

    def read_skill_file(name: str, file: str) -> str:
        return _active(name).read(file)

    def run_skill_script(name: str, script: str, arguments: Sequence[str] = ()) -> str:
        skill = _active(name)
        done = run_script(skill, script, arguments, allowed=skill.name in scripts, limits=limits)
        said = {"exit": f"exit code {done.code}", "timeout": f"stopped after {limits.seconds:g} s"}
        return f"{said.get(done.ended, f'stopped: more than {limits.output:,} bytes of output')}\n{done.output}"

    def _active(name: str) -> Skill:
        skill = skills.get(name)
        if not is_on(skill.name):
            raise BadRequest(f"Use the skill {skill.name} first.")
        return skill

    named: JsonObject = {"enum": names}
    text: JsonObject = {"type": "string"}
    words = "Put the text of a skill into your context."
    made = [tool_from_schema("use_skill", words, closed_object({"name": named}, ["name"]), use_skill, repeatable=True)]
    words = "Read a file of a skill that is in use, by its path in the skill."
    given = closed_object({"name": named, "file": text}, ["name", "file"])
    made.append(tool_from_schema("read_skill_file", words, given, read_skill_file, repeatable=True))
    if some := [name for name in names if name in scripts]:
        words = "Run a script of a skill that is in use, by its path in the skill; what it prints comes back."
        several: JsonObject = {"type": "array", "items": text, "maxItems": 32}
        fields = {"name": {"enum": some}, "script": text, "arguments": several}
        given = closed_object(fields, ["name", "script"])
        made.append(tool_from_schema("run_skill_script", words, given, run_skill_script, approval=True))
    return made
