"""Options of `kvorum decide`."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_kept, add_model


def add_options(parser: argparse.ArgumentParser) -> None:
    words = "what it is about: text, Markdown, PDF or HTML; - reads standard input; or blocks that Engine.save wrote"
    parser.add_argument("files", metavar="FILE", nargs="*", help=words)
    add = parser.add_argument_group("questions").add_argument
    words = "a question to be answered with yes or no; may be given again"
    add("-q", "--question", metavar="TEXT", action="append", default=[], help=words)
    words = "more questions: one a line, or JSON in the shape of System One or of OpenAI's decisions"
    add("-Q", "--questions", metavar="FILE", help=words)
    kinds = parser.add_mutually_exclusive_group()
    words = "what -q chooses among, with commas between, or as a list in JSON"
    kinds.add_argument("--choices", metavar="A,B,C", help=words)
    words = "the scale on which -q is answered, from the lowest level to the highest"
    kinds.add_argument("--levels", metavar="A,B,C", help=words)
    add = parser.add_argument_group("how they are asked").add_argument
    words = "list the options in so many orders and take the mean (default: 1); 0 lists none"
    add("--orders", metavar="N", type=int, help=words)
    words = "several orders are views over the same options (default), or encoded anew"
    add("--order-by", choices=("views", "encoded"), help=words)
    add("--sees", choices=("none", "earlier"), default="none", help="tell each question the answers before it")
    add("--prior", action="store_true", default=None, help="divide by what is answered about a text that says nothing")
    add = parser.add_argument_group("calibration").add_argument
    words = "fit a calibration on labelled cases: a line of JSON each, with state, questions and answers"
    add("--calibrate", metavar="CASES", help=words)
    add("-o", "--output", metavar="FILE", help="where --calibrate writes it")
    add("--calibration", metavar="FILE", help="use what --calibrate wrote")
    add_model(parser.add_argument_group("model"))
    add_kept(parser)
    parser.add_argument("-b", "--budget", metavar="LIMITS", help="such as tokens=5000,seconds=60 (default: no limit)")
    parser.add_argument("-t", "--trace", metavar="FILE", help="write what happens to FILE")
