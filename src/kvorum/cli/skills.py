"""`kvorum skills`: which skills there are, what one says, and whether folders are as the specification has them."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.errors import BadRequest
from kvorum.wording import harmless, plural

if TYPE_CHECKING:
    from kvorum.harness.skills.find import Skills
    from kvorum.harness.skills.skill import Skill
    from kvorum.jsontypes import Json


def skills(args: Namespace) -> int:
    """Do what the action says. Returns the exit code: 1 where a checked folder is not as it should be."""
    return {"list": _list, "show": _show, "check": _check}[args.action](args)


def _found(args: Namespace) -> Skills:
    from kvorum.harness.skills.find import Place, find_skills, standard_places

    for name in args.skills:
        if not Path(name).is_dir():
            raise BadRequest(f"There is no folder {name}.")
    named = [Place(Path(name)) for name in args.skills]
    return find_skills([*named, *standard_places(trust_project=args.trust_project)])


def _list(args: Namespace) -> int:
    found = _found(args)
    if args.json:
        shown = [_as_dict(skill) for skill in found.found.values()]
        untrusted = [_as_dict(skill) for skill in found.untrusted]
        print(json.dumps({"skills": shown, "untrusted": untrusted, "warnings": list(found.warnings)}))
        return 0
    from rich.table import Table

    from kvorum.cli.tables import show_table

    table = Table("skill", "what it is for", "folder", box=None, pad_edge=False)
    for skill in found.found.values():
        table.add_row(harmless(skill.name), " ".join(skill.description.split()), harmless(str(skill.folder)))
    if found.found:
        show_table(table)
    else:
        print("there are no skills")
    _warn(found.warnings)
    if found.untrusted:
        print("kvorum: --trust-project uses the skills of this project", file=sys.stderr)
    return 0


def _show(args: Namespace) -> int:
    found = _found(args)
    skill = found.get(args.name)
    if args.json:
        print(json.dumps({**_as_dict(skill), "body": skill.body, "files": list(skill.files())}))
        return 0
    for name, value in _as_dict(skill).items():
        if value and name != "problems":
            print(harmless(f"{name}: {value if isinstance(value, str) else json.dumps(value)}"))
    print()
    for line in skill.body.split("\n"):
        print(harmless(line))
    if files := skill.files():
        print(harmless(f"\nfiles: {', '.join(files)}"))
    _warn([f"{skill.folder}: {problem}" for problem in skill.problems])
    return 0


def _check(args: Namespace) -> int:
    from kvorum.harness.skills.skill import advice, read_skill

    checked: list[dict[str, Json]] = []
    for folder in _each(args.folders):
        try:
            skill = read_skill(folder)
        except BadRequest as error:
            checked.append({"folder": str(folder), "problems": [str(error)], "advice": []})
        else:
            checked.append({"folder": str(folder), "problems": list(skill.problems), "advice": list(advice(skill))})
    wrong = sum(bool(one["problems"]) for one in checked)
    if args.json:
        print(json.dumps(checked))
        return 1 if wrong else 0
    for one in checked:
        print(harmless(f"{one['folder']}: {'not as the specification has it' if one['problems'] else 'fine'}"))
        for kind, mark in (("problems", "-"), ("advice", "(advice)")):
            lines = one[kind]
            assert isinstance(lines, list)
            for words in lines:
                print(harmless(f"    {mark} {words}"))
    print(f"{plural(len(checked), 'skill')} checked, {wrong} not as the specification has it")
    return 1 if wrong else 0


def _each(folders: Sequence[str]) -> list[Path]:
    """The folders themselves where they hold a SKILL.md, else the folders in them."""
    found = []
    for name in folders:
        folder = Path(name)
        if not folder.is_dir():
            raise BadRequest(f"There is no folder {name}.")
        inner = sorted(path for path in folder.iterdir() if path.is_dir())
        own = any(path.name.casefold() == "skill.md" for path in folder.iterdir())
        many = [path for path in inner if any(one.name.casefold() == "skill.md" for one in path.iterdir())]
        found += many if many and not own else [folder]
    return found


def _as_dict(skill: Skill) -> dict[str, Json]:
    return {
        "name": skill.name,
        "description": skill.description,
        "folder": str(skill.folder),
        "license": skill.license,
        "compatibility": skill.compatibility,
        "allowed_tools": list(skill.allowed_tools),
        "metadata": skill.metadata,
        "problems": list(skill.problems),
    }


def _warn(warnings: Sequence[str]) -> None:
    for words in warnings:
        print(f"kvorum: {harmless(words)}", file=sys.stderr)
