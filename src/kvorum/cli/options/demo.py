"""Options of `kvorum demo`."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_model


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser.add_argument_group("model"))
