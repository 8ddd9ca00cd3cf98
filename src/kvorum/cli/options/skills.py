"""Options of `kvorum skills` and its actions."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_parsers

ACTIONS = {
    "list": "list the skills that there are, and say what was passed over and why",
    "show": "show a skill: what it says of itself, its body, its files",
    "check": "compare folders of skills with the Agent Skills specification",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = add_parsers(parser, "action", ACTIONS)
    actions["show"].add_argument("name", metavar="NAME", help="of the skill")
    for name in ("list", "show"):
        words = "a folder of skills, before the usual ones (.kvorum/skills and .agents/skills here and in your home)"
        actions[name].add_argument("--skills", metavar="FOLDER", action="append", default=[], help=words)
        words = "use the skills that lie in this project, too"
        actions[name].add_argument("--trust-project", action="store_true", help=words)
    actions["check"].add_argument("folders", metavar="FOLDER", nargs="+", help="a skill's folder, or one of many")
