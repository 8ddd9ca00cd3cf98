"""Options of `kvorum follow`."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    words = "where the first node is, as it says: its --master-addr and --master-port"
    add("address", metavar="ADDRESS[:PORT]", nargs="?", default="127.0.0.1", help=words)
    add("-m", "--model", metavar="NAME", help="where the model is on this machine, if elsewhere than on the first")
    words = "how long the first node may be silent, at the start and later (300)"
    add("--patience", metavar="SECONDS", type=float, default=300.0, help=words)
