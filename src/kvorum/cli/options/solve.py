"""Options of `kvorum solve`."""

from __future__ import annotations

import argparse
from functools import partial

from kvorum.cli.completion import completed_by, parameter_names
from kvorum.cli.options.groups import add_model, add_output, add_program, add_sampling


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problem", metavar="PROBLEM", nargs="?", help="what to solve; - reads standard input")
    parser.add_argument("--file", metavar="FILE", help="read the problem from a file")
    words = "say which program is likely to pay for this, with what was measured, and solve nothing"
    parser.add_argument("--best", action="store_true", help=words)
    team = parser.add_argument_group("team")
    add = team.add_argument
    add("-w", "--workers", metavar="N|NAMES", help="how many, or names with commas between")
    add_program(team, "how they work: a name of `kvorum programs`, or FILE.py:NAME of your own (default: plain)")
    add = partial(team.add_argument, dest="param", action="append", default=[])
    add("--layout", metavar="NAME", type="layout={}".format, help="hogwild: combined, interleaved or contiguous")
    add(
        "--answer",
        metavar="KIND",
        type="answer={}".format,
        help="text, boxed, code or json; which one by default is the program's",
    )
    words = "a parameter of the program; `kvorum programs NAME` shows them"
    completed_by(add("--param", metavar="NAME=VALUE", help=words), parameter_names)
    add_sampling(parser, None, 0.6)
    add_model(parser.add_argument_group("model"))
    parser.add_argument("-t", "--trace", metavar="FILE", help="write what happens to FILE, for `kvorum replay`")
    add_output(parser)
