"""Options of `kvorum mcp`."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        metavar="URL",
        default="http://127.0.0.1:8000",
        help="the `kvorum serve` whose blocks and programs are offered (default: %(default)s)",
    )
    parser.add_argument("--api-key", metavar="KEY", help="its key (or KVORUM_API_KEY)")
