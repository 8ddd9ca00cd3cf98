"""Builds the site of the docs into build/site, without the network: `make docs`.

The pages are those of docs/, and README, CONTRIBUTING and CHANGELOG. A build that has anything wrong fails: a link to a
page, a heading or a file that is not there; a public name without a docstring, or one that the reference does not show;
a docstring that its reader (griffe) does not understand. Links to source files become plain text on the site.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import griffe

ROOT = Path(__file__).parent.parent
PUBLIC = ("kvorum", "kvorum.errors", "kvorum.programs", "kvorum.harness.speaker", "kvorum.backends.backend")
"""Modules whose ``__all__`` is public, or the classes and functions that they define where they have none."""
FROM_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages that lie in the repository's root, and what they are called on the site."""
EVERY_PROGRAM = "<!-- every program -->"
"""Where the reference shows all programs, so that a new one need not be named there."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```)", flags=re.MULTILINE | re.DOTALL)


def main(folder: Path = ROOT / "build") -> int:
    """Build it in ``folder/site``. Returns the exit code; what is wrong stands on standard error."""
    things = public()
    wrong = [*gather(folder / "docs"), *undocumented(things)]
    show_programs(things, folder / "docs" / "library" / "programs.md")
    if not wrong:
        words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder / "site")]
        quiet = {"NO_MKDOCS_2_WARNING": "1"}  # no advertisement in the output of a build
        environment = os.environ | quiet | {"KVORUM_DOCS": str(folder / "docs")}
        built = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode == 0
        wrong = [*unshown(things, folder / "site")] if built else ["The site was not built."]
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    return 1 if wrong else 0


def gather(folder: Path) -> Iterator[str]:
    """Lay all pages into ``folder``, with links as they are there; a sentence for each that leads nowhere."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    homes = {f"docs/{(page := path.relative_to(folder).as_posix())}": page for path in folder.rglob("*.md")}
    for source, page in (homes | FROM_ROOT).items():
        text, wrong = with_links(source, page, (ROOT / source).read_text(encoding="utf-8"))
        (folder / page).write_text(text, encoding="utf-8")
        yield from wrong


def show_programs(things: Mapping[str, griffe.Object], page: Path) -> None:
    """Put every program where ``page`` says."""
    shown = "\n\n".join(f"::: {path}" for path, thing in things.items() if _is_program(thing))
    page.write_text(page.read_text(encoding="utf-8").replace(EVERY_PROGRAM, shown), encoding="utf-8")


def with_links(source: str, page: str, text: str) -> tuple[str, list[str]]:
    """The text of the file ``source`` as it stands on ``page`` of the site, and what is wrong with its links."""
    wrong: list[str] = []

    def link(found: re.Match[str]) -> str:
        image, words, path, anchor = found.groups()
        if "://" in path:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / target).exists():
            wrong.append(f"{source} links to {target}, which is not there.")
        if target not in FROM_ROOT and not target.startswith("docs/"):
            return words
        there = FROM_ROOT.get(target, target.removeprefix("docs/"))
        return f"{image}[{words}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor or ''})"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts), wrong


def undocumented(things: Mapping[str, griffe.Object]) -> Iterator[str]:
    """A sentence for each public name without a docstring, and for each docstring that griffe cannot read.

    A field is documented, too, if the docstring of its class names it.
    """
    complaints = Complaints()
    logging.getLogger("griffe").addHandler(complaints)
    for path, thing in things.items():
        if not thing.has_docstring:
            yield f"{path} is public and has no docstring."
        for member in thing.members.values() if thing.is_class else ():
            if not member.name.startswith("_") and not member.is_alias and not _explained(member, thing):
                yield f"{path}.{member.name} is public and has no docstring."
            if member.is_function and member.docstring:
                member.docstring.parse("google")
        if thing.docstring:
            thing.docstring.parse("google")
    yield from complaints.said


def unshown(things: Mapping[str, griffe.Object], built: Path) -> Iterator[str]:
    """A sentence for each public name that the built reference does not show."""
    reference = "".join(page.read_text(encoding="utf-8") for page in (built / "library").glob("*.html"))
    for path, thing in things.items():
        if not thing.is_module and f'id="{path}"' not in reference:
            yield f"{path} is public and on no page of docs/library."


def public() -> dict[str, griffe.Object]:
    """What is public, by the path under which it is imported, and every program, by its own."""
    lines = griffe.load_extensions(str(ROOT / "tools" / "docstring_lines.py"))
    package = griffe.load("kvorum", search_paths=[ROOT / "src"], docstring_parser="google", extensions=lines)
    assert isinstance(package, griffe.Module)
    found: dict[str, griffe.Object] = {}
    for module in PUBLIC:
        home = package if module == "kvorum" else package[module.removeprefix("kvorum.")]
        for name in home.exports or [name for name, it in home.members.items() if _defined(it)]:
            thing = home[str(name)]
            found[f"{module}.{name}"] = thing.final_target if isinstance(thing, griffe.Alias) else thing
    return found | {program.path: program for program in _programs(package["programs"])}


def _defined(it: griffe.Object | griffe.Alias) -> bool:
    return not it.is_alias and it.is_public and (it.is_class or it.is_function)


def _programs(room: griffe.Module) -> Iterator[griffe.Object]:
    """The functions that are decorated with ``@program(...)``."""
    for member in room.members.values():
        if isinstance(member, griffe.Module):
            yield from _programs(member)
        elif isinstance(member, griffe.Object) and _is_program(member):
            yield member


def _is_program(thing: griffe.Object) -> bool:
    decorators = thing.decorators if isinstance(thing, griffe.Function) else ()
    return any(str(decorator.value).startswith("program(") for decorator in decorators)


def _explained(member: griffe.Object | griffe.Alias, owner: griffe.Object) -> bool:
    """Whether a member has a docstring or, if it is a field, stands in the docstring of its class."""
    words = owner.docstring.value if owner.docstring else ""
    field = member.is_attribute and "property" not in member.labels
    return member.has_docstring or (field and re.search(rf"\b{member.name}\b", words) is not None)


class Complaints(logging.Handler):
    """Collects what griffe says of docstrings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


if __name__ == "__main__":
    sys.exit(main(*(Path(folder).resolve() for folder in sys.argv[1:2])))
