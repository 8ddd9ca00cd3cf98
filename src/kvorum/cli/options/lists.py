"""Options of the commands that list and fetch: models, pull, check, doctor, programs, completion."""

from __future__ import annotations

import argparse

from kvorum.cli.completion import completed_by, model_names, program_names
from kvorum.cli.options.groups import add_weights

SHELLS = ("bash", "zsh", "fish")


def add_pull(parser: argparse.ArgumentParser) -> None:
    words = "a name of `kvorum models`, or a hub id (org/name)"
    completed_by(parser.add_argument("name", metavar="NAME", help=words), model_names)
    words = "accept the licence of a model that asks for it (gemma3-270m), without being asked"
    parser.add_argument("--accept-licence", action="store_true", help=words)


def add_models(parser: argparse.ArgumentParser) -> None:
    words = "show this one, with the self-checks that it has passed here"
    completed_by(parser.add_argument("name", metavar="NAME", nargs="?", help=words), model_names)


def add_check(parser: argparse.ArgumentParser) -> None:
    words = "a name of `kvorum models`, folder, GGUF file or hub id"
    completed_by(parser.add_argument("name", metavar="NAME", help=words), model_names)
    add_weights(parser)


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """It has none of its own: it looks at everything."""


def add_programs(parser: argparse.ArgumentParser) -> None:
    words = "show what this one's parameters may be"
    completed_by(parser.add_argument("name", metavar="NAME", nargs="?", help=words), program_names)


def add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
