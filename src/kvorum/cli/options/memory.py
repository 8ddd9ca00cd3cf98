"""Options of `kvorum memory` and its actions."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_parsers

ACTIONS = {
    "remember": "keep a text",
    "recall": "find entries by their words, the best first",
    "list": "list entries, the oldest first",
    "show": "show an entry with all that stood in its place before and after",
    "update": "put another text in the place of an entry; the old one stays readable",
    "forget": "delete an entry for good, with all that it took the place of, and what models keep of it",
    "export": "write entries to a file or standard output, as JSON Lines or Markdown",
    "import": "take in entries from JSON Lines or Markdown",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = add_parsers(parser, "action", ACTIONS)
    for name, action in actions.items():
        words = "the memory: a file, or a PostgreSQL URL (default: $KVORUM_MEMORY, or in your data folder)"
        action.add_argument("--memory-file", "--store", dest="memory_file", metavar="FILE|URL", help=words)
        if name in ("remember", "recall"):
            add_namespace(action, "default")
        elif name in ("list", "export"):
            add_namespace(action, None, "(default: all)")
        elif name == "import":
            add_namespace(action, None, "for all of it (default: what the file says)")
    actions["remember"].add_argument("text", metavar="TEXT", help="what to keep; - reads standard input")
    actions["recall"].add_argument("query", metavar="TEXT", nargs="?", help="any words (default: the newest entries)")
    actions["recall"].add_argument("-n", "--limit", metavar="N", type=int, default=8, help="the most entries (8)")
    words = "find by meaning too: a folder of static embeddings (default: $KVORUM_EMBEDDINGS, or by words alone)"
    actions["recall"].add_argument("--embeddings", metavar="FOLDER", help=words)
    for name in ("show", "update", "forget"):
        actions[name].add_argument("id", metavar="ID", help="as it is listed, or four characters of its beginning")
    actions["update"].add_argument("text", metavar="TEXT", help="the new text; - reads standard input")
    for name in ("list", "export"):
        actions[name].add_argument("--all", action="store_true", help="with entries that were replaced")
    words = "where to; Markdown where its name ends in .md (default: standard output)"
    actions["export"].add_argument("file", metavar="FILE", nargs="?", help=words)
    actions["export"].add_argument("--markdown", action="store_true", help="Markdown, whatever the file's name")
    actions["import"].add_argument("file", metavar="FILE", help="Markdown where its name ends in .md, else JSON Lines")


def add_namespace(group: argparse._ActionsContainer, default: str | None, note: str = "(default)") -> None:
    words = f"which part of the memory {note}" if default is None else f"which part of the memory ({default})"
    group.add_argument("--namespace", metavar="NAME", default=default, help=words)
