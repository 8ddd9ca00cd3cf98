"""Options of `kvorum crew`."""

from __future__ import annotations

import argparse

from kvorum.cli.options.agent import add_rest, add_skills, add_tools


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("crew", metavar="CREW", help="a crew file, or one that ships: review, estimate, notes")
    parser.add_argument("problem", metavar="TASK", nargs="?", help="what to do; - reads standard input")
    parser.add_argument("--file", metavar="FILE", help="read the task from a file")
    parser.add_argument("--check", action="store_true", help="only read the crew file, and say who does what in it")
    add = parser.add_argument_group("tools, memory and skills").add_argument
    add_tools(add)
    words = "the namespace of the memory that all share (default, where the file has one: the file's name)"
    add("--memory", metavar="NAMESPACE", default="", help=words)
    add_skills(add)
    add_rest(parser, "crew")
