"""Folders of skills in the forms that public ones have: how names, descriptions and further fields are written.

Each is a folder's name, the bytes of its SKILL.md, and the description that it says; generated, with nobody's text.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

DESCRIPTIONS = {
    "plain": (
        "description: Reads tables from reports. Use it for tables.",
        "Reads tables from reports. Use it for tables.",
    ),
    "double": ('description: "Use for tides: tables, and \\"plots\\"."', 'Use for tides: tables, and "plots".'),
    "single": ("description: 'It''s for: reports'", "It's for: reports"),
    "folded": ("description: >\n  Reads tables\n  from reports.", "Reads tables from reports."),
    "stripped": ("description: >-\n  Reads: tables\n  from reports.", "Reads: tables from reports."),
    "literal": ("description: |\n  Reads tables.\n  - and lists", "Reads tables.\n  - and lists".replace("\n  ", "\n")),
    "long-line": ("description: Reads tables\n  from reports.", "Reads tables from reports."),
    "signs": ("description: Größe, 表 und 🙂 – für Berichte", "Größe, 表 und 🙂 – für Berichte"),
}
EXTRAS = {
    "none": "",
    "license": "license: Apache-2.0\n",
    "long-license": "license: Complete terms in LICENSE.txt\n",
    "compatibility": "compatibility: Needs python3 and the network\n",
    "metadata": 'metadata:\n  author: somebody\n  version: "1.10"\n  category: reports\n',
    "tools": "allowed-tools: Bash(git:*) Read Write\n",
    "comment": "# made by hand\n",
}
NAMES = ("tables", "pdf-tables", "x2", "a-b-c")
NOT_VALID = {
    "version": "version: 1.0.0\n",
    "author": "author: somebody\n",
    "invocable": "user-invocable: true\n",
    "tags": "tags:\n- a\n- b\n",
    "tool-list": "tools:\n- Read\n",
}
BAD_NAMES = ("Tables", "pdf_tables", "-tables", "tables-", "pdf--tables", "a" * 65, "pdf tables", "tables.v2")


def valid() -> dict[str, tuple[str, bytes, str]]:
    """Folders as the specification has them."""
    found = {}
    for (form, (line, said)), (extra, more), name in product(DESCRIPTIONS.items(), EXTRAS.items(), NAMES):
        if NAMES.index(name) and extra not in ("none", "metadata"):
            continue
        text = f"---\nname: {name}\n{line}\n{more}---\n\n# {name}\n\nDo this, then that.\n"
        found[f"{form}/{extra}/{name}"] = (name, text.encode(), said)
    return found


def not_valid() -> dict[str, tuple[str, bytes, str]]:
    """Folders that can be used and are not as the specification has them."""
    found = {}
    for field, more in NOT_VALID.items():
        text = f"---\nname: tables\ndescription: Reads tables.\n{more}---\nbody\n"
        found[f"field/{field}"] = ("tables", text.encode(), "Reads tables.")
    for name in BAD_NAMES:
        text = f"---\nname: {name}\ndescription: Reads tables.\n---\nbody\n"
        found[f"name/{name[:12]}"] = (name, text.encode(), "Reads tables.")
    found["name/other"] = ("other", b"---\nname: tables\ndescription: Reads.\n---\nbody\n", "Reads.")
    found["name/none"] = ("tables", b"---\ndescription: Reads.\n---\nbody\n", "Reads.")
    long = "x" * 1025
    found["long"] = ("tables", f"---\nname: tables\ndescription: {long}\n---\nbody\n".encode(), long)
    found["compat"] = ("tables", f"---\nname: tables\ndescription: R\ncompatibility: {'x' * 501}\n---\n".encode(), "R")
    return found


def lay(root: Path, name: str, data: bytes, file: str = "SKILL.md") -> Path:
    """A folder with this file in it."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(data)
    return folder
