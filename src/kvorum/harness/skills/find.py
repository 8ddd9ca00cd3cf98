"""Which skills there are: folders of the project and of the user, whose skill wins where two have one name, and trust.

Places in order: what was named by hand, then the project's ``.kvorum/skills`` and ``.agents/skills``, then the user's.
A project's skills are texts that somebody else may have put there; they are used only where the project is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.harness.skills.skill import FILE, Skill, read_skill
from kvorum.wording import unknown

PLACES = (".kvorum/skills", ".agents/skills")
_DEEPEST, _MOST_FOLDERS = 4, 2_000
_SKIPPED = frozenset((".git", "node_modules", "__pycache__"))


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of skills. ``trusted``: whether they may be used."""

    folder: Path
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Skills:
    """Skills by name. ``warnings``: what was passed over and why, with paths; ``untrusted``: skills of a project that
    is not trusted, which are not used."""

    found: Mapping[str, Skill] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    untrusted: Sequence[Skill] = ()

    def get(self, name: str) -> Skill:
        """The skill of that name, in whatever case. Raises BadRequest, with the near ones: there is none."""
        for skill in self.found.values():
            if skill.key == name.strip().casefold():
                return skill
        raise BadRequest(unknown("skill", name, self.found))


def standard_places(project: Path | None = None, *, trust_project: bool = False) -> Sequence[Place]:
    """The project's places (default: of the current folder), then the user's."""
    here = Path.cwd() if project is None else project
    mine = [Place(here / name, trust_project) for name in PLACES]
    home = Path.home()
    return mine + ([Place(home / name) for name in PLACES] if home.resolve() != here.resolve() else [])


def find_skills(places: Sequence[Place | Path]) -> Skills:
    """The skills of all places; of two with one name that of the place named first, in one place that of the path that
    sorts first. What cannot be read is passed over with a warning, and the others are there."""
    found: dict[str, Skill] = {}
    untrusted: list[Skill] = []
    warnings: list[str] = []
    for place in (place if isinstance(place, Place) else Place(place) for place in places):
        for folder in _folders(place.folder, warnings):
            try:
                skill = read_skill(folder)
            except (BadRequest, OSError) as error:
                warnings.append(str(error))
                continue
            warnings += [f"{folder / FILE}: {problem}" for problem in skill.problems]
            if not place.trusted:
                untrusted.append(skill)
            elif (other := found.get(skill.key)) is not None:
                warnings.append(f"{folder}: {other.folder} has the name {other.name} too and comes first")
            else:
                found[skill.key] = skill
    if untrusted:
        where = sorted({str(skill.folder.parent) for skill in untrusted})
        warnings.append(
            f"{', '.join(where)}: {len(untrusted)} skills of a project that is not trusted; they are not used"
        )
    return Skills({skill.name: skill for skill in found.values()}, warnings, untrusted)


def _folders(root: Path, warnings: list[str]) -> Sequence[Path]:
    """Folders under ``root`` that hold a SKILL.md, sorted; links that lead out of it are not followed."""
    top = root.resolve()
    found: list[Path] = []
    seen = 0

    def look(folder: Path, depth: int) -> None:
        nonlocal seen
        seen += 1
        if seen > _MOST_FOLDERS:
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            warnings.append(f"{folder}: {error.strerror or error}")
            return
        if any(entry.name.casefold() == FILE.casefold() for entry in entries):
            found.append(folder)
            return
        for entry in entries:
            if entry.name in _SKIPPED or not entry.is_dir():
                continue
            inner = Path(entry.path)
            if not inner.resolve().is_relative_to(top):
                warnings.append(f"{inner}: it is a link that leads out of {root}; it is not followed")
            elif depth > 1:
                look(inner, depth - 1)

    if root.is_dir():
        look(root, _DEEPEST + 1)
    if seen > _MOST_FOLDERS:
        warnings.append(f"{root}: it has more than {_MOST_FOLDERS:,} folders; the rest was not looked at")
    return found
