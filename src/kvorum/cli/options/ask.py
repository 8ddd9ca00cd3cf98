"""Options of `kvorum ask`."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_kept, add_model


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", metavar="FILE", nargs="*", help="text, Markdown, PDF or HTML; - reads standard input")
    words = "a question; give as many as you like"
    add("-q", "--question", metavar="TEXT", action="append", default=[], dest="questions", help=words)
    add("-Q", "--questions-file", metavar="FILE", help="questions from a file, one a line")
    add = parser.add_argument_group("answers").add_argument
    add("-n", "--tokens", metavar="N", type=int, default=256, help="the most tokens of an answer (256)")
    add("--rules", metavar="TEXT", help="how to answer (default: from the text alone, in one short sentence)")
    add("--quote", action="store_true", help="with each answer a sentence of the text that supports it, and its place")
    add("--split", action="store_true", help="read a text that is too long in parts")
    add("-w", "--workers", metavar="N", type=int, help="questions that are answered at once (16)")
    add = parser.add_argument_group("budget and sampling").add_argument
    add("-b", "--budget", metavar="LIMITS", help="ticks, or limits such as ticks=512,seconds=60 (default: none)")
    add("--seed", metavar="N", type=int, help="same seed, same tokens (default: 0)")
    add("--temperature", metavar="T", type=float, default=0.0, help="0 is greedy (default)")
    add_model(parser.add_argument_group("model"))
    add_kept(parser)
    parser.add_argument("-t", "--trace", metavar="FILE", help="write what happens to FILE, for `kvorum replay`")
    output = parser.add_argument_group("output")
    output.add_argument("--quiet", action="store_true", help="print the answers alone")
    output.add_argument("--lines", action="store_true", help="lines of text instead of panes, as in a pipe")
