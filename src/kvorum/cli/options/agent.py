"""Options of `kvorum agent`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kvorum.cli.completion import completed_by, parameter_names
from kvorum.cli.options.groups import add_model, add_output, add_sampling


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problem", metavar="TASK", nargs="?", help="what to do; - reads standard input")
    parser.add_argument("--file", metavar="FILE", help="read the task from a file")
    add = parser.add_argument_group("tools, memory and skills").add_argument
    add_tools(add)
    add("--calls", metavar="N", type=int, default=16, help="the most calls; then it must answer (16)")
    words = "the namespace of a memory that it sees, reads and writes (`kvorum memory`)"
    add("--memory", metavar="NAMESPACE", default="", help=words)
    add_skills(add)
    words = "a skill that is on from the beginning; may be given several times"
    add("--use", metavar="SKILL", action="append", default=[], help=words)
    add("--decide", action="store_true", help="a decision switches on the skill that the task needs, or none")
    add_rest(parser, "agent")


def add_tools(add: Callable[..., argparse.Action]) -> None:
    """Options that say which tools there are."""
    words = "typed functions that it may call, as in tools.py:NAME or package.module:NAME; may be given several times"
    add("--tools", metavar="PLACE", action="append", default=[], help=words)
    add("--mcp", metavar="FILE", default="", help="a JSON file with mcpServers, whose tools it may call")
    words = "a server that may be used though it reaches the network; may be given several times"
    add("--allow", metavar="NAME", action="append", default=[], help=words)
    add("--yes", action="store_true", help="approve calls that want a person's word, unasked")


def add_skills(add: Callable[..., argparse.Action]) -> None:
    """Options that say which skills there are."""
    words = "a folder of skills that may be switched on; may be given several times"
    add("--skills", metavar="FOLDER", action="append", default=[], help=words)
    words = "a skill whose scripts may be run, each time after asking you; may be given several times"
    add("--scripts", metavar="SKILL", action="append", default=[], help=words)


def add_rest(parser: argparse.ArgumentParser, program: str) -> None:
    """Other parameters, budget, sampling, model, trace and output."""
    words = f"another parameter of the program; `kvorum programs {program}` shows them"
    add = parser.add_argument_group("parameters").add_argument
    completed_by(add("--param", metavar="NAME=VALUE", action="append", default=[], help=words), parameter_names)
    add_sampling(parser, "4096", 0.0)
    add_model(parser.add_argument_group("model"))
    words = "write what happens to FILE; after a stop `kvorum replay FILE --resume` goes on, and calls nothing twice"
    parser.add_argument("-t", "--trace", metavar="FILE", help=words)
    add_output(parser)
