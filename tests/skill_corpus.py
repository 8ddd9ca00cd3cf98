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
    "keep": ("description: >+\n  Reads tables.\n\n", "Reads tables."),
    "quoted-lines": ('description: "Reads tables\n  and lists."', "Reads tables and lists."),
    "remark": ("description: Reads tables. # and no lists", "Reads tables."),
    "marks": ("description: Reads <b>tables</b> & lists.", "Reads <b>tables</b> & lists."),
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
    "commas": "allowed-tools: Read, Write, Bash(git:*)\n",
    "empty": "license:\nmetadata:\n",
    "scalars": "metadata:\n  version: 1.0\n  made: 2026-01-02\n  stable: true\n",
}
FIELDS: dict[str, dict[str, object]] = {
    "license": {"license": "Apache-2.0"},
    "long-license": {"license": "Complete terms in LICENSE.txt"},
    "compatibility": {"compatibility": "Needs python3 and the network"},
    "metadata": {"metadata": {"author": "somebody", "version": "1.10", "category": "reports"}},
    "tools": {"allowed_tools": ["Bash(git:*)", "Read", "Write"]},
    "commas": {"allowed_tools": ["Read,", "Write,", "Bash(git:*)"]},
    "empty": {"license": "", "metadata": None},
    "scalars": {"metadata": {"version": "1.0", "made": "2026-01-02", "stable": "true"}},
}
"""What each of ``EXTRAS`` says, as it is read; what it does not name is empty."""
NAMES = ("tables", "pdf-tables", "x2", "a-b-c", "技能", "мой-навык")
NOT_VALID = {
    "version": "version: 1.0.0\n",
    "author": "author: somebody\n",
    "invocable": "user-invocable: true\n",
    "tags": "tags:\n- a\n- b\n",
    "tool-list": "tools:\n- Read\n",
    "model": "model: large\ncontext: fork\n",
    "when": "when_to_use: always\n",
    "hint": "argument-hint: [file]\n",
    "manual": "disable-model-invocation: true\n",
    "json": 'metadata: {"gateway": {"requires": {"bins": ["git"]}}}\n',
    "flow-list": "allowed-tools: [Read, Write]\n",
}
UNLIKE = {
    # what YAML has and the reference's reader of YAML has not
    "flow": ("metadata: {author: somebody}\n", False),
    "anchor": ("license: &terms Apache-2.0\n", False),
    # what the specification says of values ("string keys to string values", "space-separated") and nobody there checks
    "nested": ("metadata:\n  gateway:\n    emoji: moon\n", True),
    "tags": ("metadata:\n  tags:\n  - a\n", True),
    "block-list": ("allowed-tools:\n- Read\n- Write\n", True),
}
"""Further fields by which the reference and the specification differ, and whether the specification forbids them."""
BAD_NAMES = (
    *("Tables", "pdf_tables", "-tables", "tables-", "pdf--tables", "a" * 65, "pdf tables", "tables.v2"),
    *("НАВЫК", "Tide-tables", "tables!", "🙂"),
)


def valid() -> dict[str, tuple[str, bytes, str]]:
    """Folders as the specification has them."""
    found = {}
    for (form, (line, said)), (extra, more), name in product(DESCRIPTIONS.items(), EXTRAS.items(), NAMES):
        if NAMES.index(name) and extra not in ("none", "metadata"):
            continue
        text = f"---\nname: {name}\n{line}\n{more}---\n\n# {name}\n\nDo this, then that.\n"
        found[f"{form}/{extra}/{name}"] = (name, text.encode(), said)
    every = "".join(EXTRAS[extra] for extra in ("license", "compatibility", "metadata", "tools"))
    for name in NAMES:
        text = f"---\nname: {name}\ndescription: Reads tables.\n{every}---\n\n# {name}\n\nDo this, then that.\n"
        found[f"every/{name}"] = (name, text.encode(), "Reads tables.")
    return found


def further(label: str) -> dict[str, object]:
    """The further fields of a folder of ``valid`` as they are read."""
    form, extra = label.split("/")[:2]
    every = ("license", "compatibility", "metadata", "tools") if form == "every" else (extra,)
    said: dict[str, object] = {"license": "", "compatibility": "", "metadata": None, "allowed_tools": []}
    for one in every:
        said |= FIELDS.get(one, {})
    return said


def unlike() -> dict[str, tuple[bytes, bool]]:
    """Files of which the reference says otherwise than the specification, and whether that forbids them."""
    head = "---\nname: tide\ndescription: Tides.\n"
    return {label: (f"{head}{more}---\nbody\n".encode(), wrong) for label, (more, wrong) in UNLIKE.items()}


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
    found["name/path"] = ("late", b"---\nname: x/../../late\ndescription: Reads.\n---\nbody\n", "Reads.")
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
