"""Options of `kvorum serve`."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_model, add_program


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser, several=True)
    add_program(parser, "offer this program of your own, too: FILE.py:NAME or PACKAGE.MODULE:NAME", action="append")
    add = parser.add_argument_group("place").add_argument
    add("--host", metavar="ADDRESS", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    add("--port", metavar="N", type=int, default=8000, help="0 takes a free one (default: 8000)")
    add("--api-key", metavar="KEY", help="what clients must send; needed beyond this machine")
    add("--api-keys", metavar="FILE", help="keys of several clients, each with limits and what is its own, in TOML")
    add("--name", metavar="HOST", action="append", default=[], help="a further name under which clients may reach it")
    add("--root-path", metavar="PATH", default="", help="the path under which a proxy shows it, as in /kvorum")
    words = "where runs are kept: a folder, or a PostgreSQL URL that servers share (default: in the cache folder)"
    add("--store", metavar="FOLDER|URL", help=words)
    words = "where saved blocks lie, which servers may share: a folder, or a URL for fsspec (default: beside the runs)"
    add("--blocks", metavar="FOLDER|URL", help=words)
    add = parser.add_argument_group("telemetry").add_argument
    add("--telemetry", action="store_true", help="send spans for OpenTelemetry to where its OTEL_ variables say")
    add("--tick-spans", metavar="SHARE", type=float, default=0.01, help="the share of ticks that get a span (0.01)")
    add = parser.add_argument_group("limits").add_argument
    add("--models-loaded", metavar="N", type=int, help="models that are loaded at a time, of those given (all of them)")
    add("--max-workers", metavar="N", type=int, help="workers of a run (16)")
    add("--max-ticks", metavar="N", type=int, help="ticks of a run (4096)")
    add("--max-prompt", dest="max_prompt_tokens", metavar="N", type=int, help="tokens of a prompt (16384)")
    add("--max-tokens", metavar="N", type=int, help="tokens of a reply (8192)")
    add("--max-rows", metavar="N", type=int, help="rows that share a tick (128)")
    add("--drain", metavar="SECONDS", type=float, default=5.0, help="for replies to end in when it is stopped (5)")
    add("--max-waiting", metavar="N", type=int, help="requests that may wait; more get 429 (256)")
