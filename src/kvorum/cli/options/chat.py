"""Options of `kvorum chat`."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_kept, add_model


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", metavar="FILE", nargs="*", help="text, Markdown, PDF or HTML to talk about")
    add("-n", "--tokens", metavar="N", type=int, default=512, help="the most tokens of an answer (512)")
    add("--seed", metavar="N", type=int, help="same seed, same tokens (default: 0)")
    add("--temperature", metavar="T", type=float, default=0.0, help="0 is greedy (default)")
    add_model(parser.add_argument_group("model"))
    add_kept(parser)
