"""`kvorum memory`: what was learnt, kept as text; no model is loaded for it."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.errors import BadRequest
from kvorum.wording import harmless, plural

if TYPE_CHECKING:
    from kvorum.harness.memory.memory import Memory
    from kvorum.store.memory.entries import Entry


def memory(args: Namespace) -> int:
    """Do what the action says. Returns the exit code: 1 where nothing was found."""
    from kvorum.harness.memory.embeddings import StaticEmbeddings
    from kvorum.harness.memory.memory import Memory
    from kvorum.store.memory.store import MemoryStore

    named = getattr(args, "embeddings", None)
    kept = Memory(
        MemoryStore(args.memory_file),
        namespace=getattr(args, "namespace", None) or "default",
        embeddings=StaticEmbeddings(Path(named)) if named else None,
    )
    does = {
        "remember": _remember,
        "recall": _recall,
        "list": _list,
        "show": _show,
        "update": _update,
        "forget": _forget,
        "export": _export,
        "import": _import,
    }
    return does[args.action](args, kept)


def _remember(args: Namespace, kept: Memory) -> int:
    return _say([kept.remember(_text(args.text))], args, one=True)


def _recall(args: Namespace, kept: Memory) -> int:
    found = kept.recall(args.query, limit=args.limit)
    if args.json:
        told = {"entries": [entry.as_dict() for entry in found.entries], "missing": found.missing}
        print(json.dumps({**told, "ranked_by": kept.ranked_by}))
        return 0 if found.entries else 1
    code = _say(found.entries, args)
    if found.missing:
        print(f"{plural(found.missing, 'entry', 'entries')} more: -n shows them")
    return code


def _list(args: Namespace, kept: Memory) -> int:
    return _say(kept.store.list(namespace=args.namespace, superseded=args.all), args)


def _show(args: Namespace, kept: Memory) -> int:
    return _say(kept.store.history(args.id), args)


def _update(args: Namespace, kept: Memory) -> int:
    return _say([kept.update(args.id, _text(args.text))], args, one=True)


def _forget(args: Namespace, kept: Memory) -> int:
    gone = kept.forget(args.id)
    if args.json:
        print(json.dumps([entry.as_dict() for entry in gone], ensure_ascii=False))
    else:
        for entry in gone:
            print(harmless(f"forgotten: {entry.id}  {entry.text}"))
    return 0


def _export(args: Namespace, kept: Memory) -> int:
    from kvorum.store.memory.files import write_json_lines, write_markdown

    entries = kept.store.list(namespace=args.namespace, superseded=args.all)
    as_markdown = args.markdown or str(args.file).lower().endswith((".md", ".markdown"))
    if as_markdown and args.json and args.file is None:
        raise BadRequest("--json and --markdown exclude one another.")
    text = (write_markdown if as_markdown else write_json_lines)(entries)
    if args.file is None:
        sys.stdout.write(text)
        return 0
    path = Path(args.file)
    if not path.absolute().parent.is_dir():
        raise BadRequest(f"The folder of {path} does not exist; make it or name another.")
    fresh = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        fresh.write_text(text, encoding="utf-8", newline="\n")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    print(
        json.dumps({"written": len(entries), "file": str(path)}) if args.json else f"{len(entries)} written to {path}"
    )
    return 0


def _import(args: Namespace, kept: Memory) -> int:
    from kvorum.store.memory.files import read_entries

    found = read_entries(args.file, namespace=args.namespace)
    new = kept.store.add(found)
    said = {"read": len(found), "new": new}
    print(json.dumps(said) if args.json else f"{len(found)} read from {args.file}, {new} of them new")
    return 0


def _text(given: str) -> str:
    return sys.stdin.read() if given == "-" else given


def _say(entries: Sequence[Entry], args: Namespace, *, one: bool = False) -> int:
    """Print entries. Returns the exit code: 1 where there are none."""
    if args.json:
        shown = [entry.as_dict() for entry in entries]
        print(json.dumps(shown[0] if one else shown, ensure_ascii=False))
        return 0 if entries else 1
    for entry in entries:
        replaced = f" (replaced by {entry.superseded_by})" if entry.superseded_by else ""
        where = f"{entry.namespace}  " if getattr(args, "namespace", None) is None else ""
        print(harmless(f"{entry.id}  {entry.moment[:16].replace('T', ' ')}  {where}{entry.source}{replaced}"))
        for line in entry.text.split("\n"):
            print(harmless(f"    {line}"))
    if not entries:
        print("nothing is remembered", file=sys.stderr)
    return 0 if entries else 1
