"""A skill: a folder with a SKILL.md, read leniently and compared with the Agent Skills specification.

What is wrong is told as ``problems``; what makes it unusable (no description, no head, a link that leads out) is an
error of its own. Nothing outside the folder is ever read.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.harness.skills.front_matter import Head, Value, read_head
from kvorum.wording import harmless, size

FILE = "SKILL.md"
MOST_NAME, MOST_DESCRIPTION, MOST_COMPATIBILITY = 64, 1024, 500
FIELDS = ("name", "description", "license", "compatibility", "metadata", "allowed-tools")
ADVISED_LINES = 500
_MOST_BYTES = 1_000_000
"""Of a SKILL.md, and of a file of a skill that a model reads."""
_MOST_FILES, _DEEPEST = 200, 4


@dataclass(frozen=True, slots=True)
class Skill:
    """What a folder says of itself, and what of that is not as the specification has it."""

    name: str
    description: str
    body: str
    folder: Path
    license: str = ""
    compatibility: str = ""
    allowed_tools: Sequence[str] = ()
    metadata: Mapping[str, str] | None = None
    problems: Sequence[str] = ()

    @property
    def key(self) -> str:
        """What it is known by: names that differ in their case alone are one."""
        return self.name.casefold()

    def files(self) -> Sequence[str]:
        """Its files but SKILL.md, by their paths in the folder; links that lead out are left out."""
        root = self.folder.resolve()
        return sorted(_files(root, root, _DEEPEST))[:_MOST_FILES]

    def path(self, name: str) -> Path:
        """A file of its folder by the path in it. Raises BadRequest: it is none, or lies elsewhere."""
        root = self.folder.resolve()
        try:
            found = (root / name).resolve()
            inside = not Path(name).is_absolute() and found.is_relative_to(root)
            there = inside and found.is_file()
        except (OSError, ValueError):
            inside = there = False
        if not inside:
            raise BadRequest(f"{name[:200]!r} lies outside the folder of the skill {self.name}; it is not read.")
        if not there:
            raise BadRequest(f"The skill {self.name} has no file {name[:200]!r}.")
        return found

    def read(self, name: str) -> str:
        """The text of a file of its folder. Raises BadRequest: there is none, it is too large, or no UTF-8."""
        path = self.path(name)
        if (length := path.stat().st_size) > _MOST_BYTES:
            raise BadRequest(
                f"{name} of the skill {self.name} has {size(length)}; at most {size(_MOST_BYTES)} are read."
            )
        try:
            return path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise BadRequest(f"{name} of the skill {self.name} is no UTF-8 text.") from None


def read_skill(folder: Path) -> Skill:
    """The skill of a folder.

    Raises:
        BadRequest: it cannot be used; the message has the path and says why.
    """
    path, spelt = _skill_file(folder)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadRequest(f"{path}: it is a link that leads out of its folder; it is not read.")
    if path.stat().st_size > _MOST_BYTES:
        raise BadRequest(f"{path}: it has more than {size(_MOST_BYTES)}.")
    head = read_head(path.read_bytes())
    if head.broken:
        raise BadRequest(f"{path}: {head.broken}.")
    description = _text(head.fields.get("description")).strip()
    if not description:
        raise BadRequest(f"{path}: it has no description, so that nobody knows when to use it.")
    name = unicodedata.normalize("NFKC", _text(head.fields.get("name")).strip())
    tools = head.fields.get("allowed-tools", "")
    metadata = head.fields.get("metadata")
    return Skill(
        name=name or unicodedata.normalize("NFKC", folder.resolve().name),
        description=harmless(description),
        body=head.body,
        folder=folder,
        license=_text(head.fields.get("license")).strip(),
        compatibility=_text(head.fields.get("compatibility")).strip(),
        allowed_tools=tools.split() if isinstance(tools, str) else [_text(one) for one in tools],
        metadata={key: _text(value) for key, value in metadata.items()} if isinstance(metadata, Mapping) else None,
        problems=[*spelt, *head.problems, *_problems(head, folder, name, description)],
    )


def _skill_file(folder: Path) -> tuple[Path, list[str]]:
    """The file as it is spelt on the disk, and what to say of that."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise BadRequest(f"{folder}: {error.strerror or error}.") from None
    if FILE in names:
        return folder / FILE, []
    for name in sorted(names):
        if name.casefold() == FILE.casefold():
            return folder / name, [f"its file is called {name}; other systems find only {FILE}"]
    raise BadRequest(f"{folder}: there is no {FILE} in it.")


def _problems(head: Head, folder: Path, name: str, description: str) -> Iterator[str]:
    """What the specification forbids, in the order of its fields."""
    fields = head.fields
    if "name" not in fields or not name:
        yield "it has no name; its folder's is taken"
    else:
        if not isinstance(fields["name"], str):
            yield "its name is no text"
        if len(name) > MOST_NAME:
            yield f"its name has {len(name)} characters, more than {MOST_NAME}"
        if name != name.lower():
            yield "its name has capital letters"
        if name.startswith("-") or name.endswith("-") or "--" in name:
            yield "its name begins or ends with a hyphen, or has two side by side"
        if not all(sign.isalnum() or sign == "-" for sign in name):
            yield "its name has signs other than letters, digits and hyphens"
        if name != unicodedata.normalize("NFKC", folder.resolve().name):
            yield f"its name is {name!r} and its folder's {folder.resolve().name!r}"
    if not isinstance(fields["description"], str):
        yield "its description is no text"
    if len(description) > MOST_DESCRIPTION:
        yield f"its description has {len(description):,} characters, more than {MOST_DESCRIPTION:,}"
    compatibility = fields.get("compatibility", "")
    if not isinstance(compatibility, str):
        yield "its compatibility is no text"
    elif len(compatibility) > MOST_COMPATIBILITY:
        yield f"its compatibility has {len(compatibility)} characters, more than {MOST_COMPATIBILITY}"
    if not isinstance(metadata := fields.get("metadata", {}), Mapping) and metadata != "":
        yield "its metadata are no fields with values"
    elif isinstance(metadata, Mapping) and not all(isinstance(value, str) for value in metadata.values()):
        yield "its metadata have values that are no texts"
    if not isinstance(fields.get("allowed-tools", ""), str):
        yield "its allowed-tools are no text with blanks between them"
    if unknown := sorted(fields.keys() - set(FIELDS)):
        yield f"it has fields that the specification does not know: {harmless(', '.join(unknown))}"


def advice(skill: Skill) -> Iterator[str]:
    """What is advised, and no rule."""
    if (lines := skill.body.count("\n") + 1) > ADVISED_LINES:
        yield f"its body has {lines:,} lines; at most {ADVISED_LINES} are advised, the rest in files of their own"
    if not skill.body:
        yield "its body is empty"


def _text(value: Value | None) -> str:
    """A value as text: of a list or mapping nothing that could grow."""
    if value is None or isinstance(value, str):
        return value or ""
    return ", ".join(one for one in value if isinstance(one, str)) if not isinstance(value, Mapping) else ""


def _files(folder: Path, root: Path, depth: int) -> Iterator[str]:
    count = 0
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not Path(entry.path).resolve().is_relative_to(root):
            continue
        if entry.is_dir(follow_symlinks=False):
            if depth > 1 and entry.name != ".git":
                yield from _files(Path(entry.path), root, depth - 1)
        elif entry.is_file() and entry.name.casefold() != FILE.casefold():
            yield Path(entry.path).relative_to(root).as_posix()
        count += 1
        if count > 2 * _MOST_FILES:
            return
