"""Options of `kvorum fields`."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_model


def add_options(parser: argparse.ArgumentParser) -> None:
    words = "text, Markdown, HTML or PDF; - reads standard input. Of several files each gives one line of JSON"
    parser.add_argument("files", metavar="FILE", nargs="+", help=words)
    form = parser.add_argument_group("form")
    add = form.add_argument
    words = "the form: a JSON schema, or a class of pydantic as FILE.py:CLASS or PACKAGE.MODULE:CLASS"
    add("-s", "--schema", metavar="SCHEMA", required=True, help=words)
    words = "whether fields see each other: none (default); earlier: one after the other; live: while they are written"
    add("--sees", choices=("none", "earlier", "live"), default="none", help=words)
    add("--confidence", action="store_true", help="tell the probability of each field")
    add("--tokens", metavar="N", type=int, default=96, help="the most tokens of a field (96)")
    add("-w", "--workers", metavar="N", type=int, help="fields that are written at once (16)")
    add_model(parser.add_argument_group("model"))
    add = parser.add_argument_group("output").add_argument
    words = "write a line of JSON for each file; what OUT has already is not done again, so that a killed run goes on"
    add("-o", "--output", metavar="OUT", help=words)
    add("-q", "--quiet", action="store_true", help="no progress and no remarks")
