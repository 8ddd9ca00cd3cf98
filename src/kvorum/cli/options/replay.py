"""Options of `kvorum replay`."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_adapter, add_cache, add_ignore_unknown, add_output, add_program, add_spread


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help="a trace, made by `kvorum solve --trace FILE`")
    add("--resume", action="store_true", help="go on with an unfinished run")
    add("--show", action="store_true", help="play it without the model")
    add("--speed", metavar="X", type=float, default=1.0, help="with --show: so many times as fast; 0: at once")
    add("--hold", metavar="SECONDS", type=float, default=0.0, help="with --show: how long the last picture stays")
    add("-m", "--model", metavar="NAME", help="the same model, where it has moved")
    add_program(parser, "the same program of your own, where it has moved: FILE.py:NAME")
    model = parser.add_argument_group("model")
    add_adapter(model, "the same adapter, where it has moved")
    add_cache(model)
    add_spread(model, None)
    add_ignore_unknown(parser)
    add_output(parser)
