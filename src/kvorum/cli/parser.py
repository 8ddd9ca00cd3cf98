"""The command line: every command with its options. Wrong use is one sentence on standard error and exit code 2."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from typing import NoReturn

from kvorum.cli.completion import SHELLS, complete, completed_by, model_names, parameter_names, program_names
from kvorum.wording import unknown

COMMANDS = ("solve", "models", "pull", "programs", "replay", "serve", "study", "bench", "completion")


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors read as all errors of kvorum do."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"kvorum: {message}; see `{self.prog} --help`\n")
        raise SystemExit(2)


def parse(argv: list[str]) -> argparse.Namespace:
    """The parsed command line; ``command`` is one of COMMANDS. Exits with 2 on wrong use."""
    parser = make_parser()
    complete(parser)
    _check_command(parser, argv)
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return args


def _check_command(parser: Parser, argv: list[str]) -> None:
    """argparse lists all commands for an unknown one; name the near ones first."""
    said = next((word for word in argv if not word.startswith("-")), None)
    if said is not None and said not in COMMANDS:
        parser.exit(2, f"kvorum: {unknown('command', said, COMMANDS)}\n")


def make_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="kvorum",
        description="Several LLM workers think at the same time over one KV cache.",
        epilog='Try: kvorum solve "What is 12 * 17?" --workers 4 --model smollm2-135m',
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kvorum {version('kvorum')}")
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object (or list) for machines")
    common.add_argument("--debug", action="store_true", help="on an error, show where it came from")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary, parents=[common], allow_abbrev=False)

    _solve(command("solve", "let a team of workers solve a problem"))
    command("models", "list the models known by name")
    pull = command("pull", "fetch a model; an interrupted pull goes on where it stopped")
    name = pull.add_argument("name", metavar="NAME", help="a name of `kvorum models`, or a hub id (org/name)")
    completed_by(name, model_names)
    programs = command("programs", "list the programs (ways of organising workers), or the parameters of one")
    name = programs.add_argument("name", metavar="NAME", nargs="?", help="show what this one's parameters may be")
    completed_by(name, program_names)
    _replay(command("replay", "run a trace again and compare every token; or go on with it, or show it"))
    _serve(command("serve", "serve a model: OpenAI-compatible, with live runs of programs and a page to watch them"))
    _study(command("study", "run many teams and controls on generated problems; tables, statistics, pictures"), common)
    _bench(command("bench", "measure ticks on this machine, beside other engines on the same weights"))
    completion = command("completion", "print a script for your shell that completes all of this")
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"{', '.join(SHELLS)}")
    return parser


def _study(parser: argparse.ArgumentParser, common: Parser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    for name, summary in (
        ("run", "run all cells that are not done yet; an interrupted study goes on where it stopped"),
        ("report", "write report.html and report.md from the table of a study"),
        ("attention", "write attention.html and attention.md: heat maps of whose words the workers attended to"),
        ("variance", "take the variance of the scores apart: tokens, program, channel, workers, model, task"),
    ):
        action = actions.add_parser(name, help=summary, description=summary, parents=[common], allow_abbrev=False)
        action.add_argument(
            "file",
            metavar="FILE",
            help="the study, in YAML or in Python, which is run; see docs/lab.md",
        )
        action.add_argument("-o", "--output", metavar="FOLDER", help="of the results (default: NAME-results)")
        if name == "variance":
            action.add_argument("--draws", metavar="N", type=int, default=200, help="bootstrap draws of items (200)")
    summary = "inject faults, watch with the detectors, write their precision and recall"
    faults = actions.add_parser("faults", help=summary, description=summary, parents=[common], allow_abbrev=False)
    faults.add_argument("-o", "--output", metavar="FOLDER", default="faults-results", help="of the results")
    faults.add_argument("--dev", metavar="N", type=int, default=8, help="seeds for development, from 0 on (8)")
    faults.add_argument("--seeds", metavar="N", type=int, default=20, help="held-out seeds behind them (20)")
    faults.add_argument(
        "-m",
        "--model",
        metavar="NAME",
        default="none",
        help="let this model write too, on --model-seeds of each kind (default: none; scripted workers alone)",
    )
    faults.add_argument("--model-dev", metavar="N", type=int, default=2, help="development seeds for the model (2)")
    faults.add_argument("--model-seeds", metavar="N", type=int, default=6, help="held-out seeds for the model (6)")
    faults.add_argument("--scenarios", "--worlds", metavar="NAMES", help="some scenarios only, with commas")


def _bench(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument("-m", "--model", metavar="NAME", default="smollm2-135m", help="default: smollm2-135m")
    completed_by(model, model_names)
    parser.add_argument("--exact", action="store_true", help="float32 weights, nothing quantised")
    _cache_dtype(parser)
    grid = parser.add_argument_group("ticks and prefill, beside other engines")
    grid.add_argument("--context", metavar="N,N", default="256,1024,4096", help="shared tokens (256,1024,4096)")
    grid.add_argument("-w", "--workers", metavar="N,N", default="1,2,4,8,16", help="team sizes (1,2,4,8,16)")
    grid.add_argument(
        "--peers",
        metavar="NAMES",
        default="llama.cpp,llama.cpp-shared,transformers,vllm",
        help="of llama.cpp (a copy of the context for each worker), llama.cpp-shared (one for all), transformers, "
        "vllm; or none (default: all that are installed)",
    )
    grid.add_argument("--repeats", metavar="N", type=int, default=9, help="timed ticks of each cell (9)")
    grid.add_argument(
        "--limit",
        metavar="SECONDS",
        type=float,
        default=120,
        help="an engine sits out from the step that takes it longer (120)",
    )
    grid.add_argument(
        "--heavy",
        metavar="TOKENS",
        type=int,
        default=65536,
        help="engines that copy the context sit out where workers times context is above it (65536)",
    )
    also = parser.add_argument_group("also")
    also.add_argument("--spans", action="store_true", help="the same tokens in one span and in up to 256")
    also.add_argument("--attention", action="store_true", help="attention alone, at 4,096 shared tokens")
    also.add_argument("--teams", action="store_true", help="64 teams of four in one engine: tick, plan, memory")
    also.add_argument("--quality", action="store_true", help="perplexity and likeliest tokens against the exact mode")
    also.add_argument("--start", action="store_true", help="seconds to the first token of a later `kvorum solve`")
    also.add_argument("--all", action="store_true", help="all of these")
    files = parser.add_argument_group("output")
    files.add_argument("-o", "--output", metavar="FILE", help="write all figures to FILE as JSON")
    files.add_argument("--plot", metavar="FILE", help="draw ticks and tokens per second into FILE (.png, .svg, .pdf)")


def _serve(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _weights(parser)
    _program(parser, "offer this program of your own, too: FILE.py:NAME or PACKAGE.MODULE:NAME", action="append")
    place = parser.add_argument_group("place")
    place.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    place.add_argument("--port", metavar="N", type=int, default=8000, help="0 takes a free one (default: 8000)")
    place.add_argument("--api-key", metavar="KEY", help="what clients must send; needed beyond this machine")
    place.add_argument(
        "--name", metavar="HOST", action="append", default=[], help="a further name under which clients may reach it"
    )
    place.add_argument("--store", metavar="FOLDER", help="where runs are kept (default: in the cache folder)")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-workers", metavar="N", type=int, help="workers of a run (16)")
    limits.add_argument("--max-ticks", metavar="N", type=int, help="ticks of a run (4096)")
    limits.add_argument("--max-prompt", metavar="N", type=int, help="tokens of a prompt (16384)")
    limits.add_argument("--max-rows", metavar="N", type=int, help="rows that share a tick (128)")
    limits.add_argument("--max-waiting", metavar="N", type=int, help="requests that may wait; more get 429 (256)")


def _shown(parser: argparse.ArgumentParser) -> None:
    shown = parser.add_argument_group("output")
    shown.add_argument("-q", "--quiet", action="store_true", help="print the answer alone")
    shown.add_argument("--plain", action="store_true", help="lines of text instead of panes, as in a pipe")


def _solve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problem", metavar="PROBLEM", nargs="?", help="what to solve; - reads standard input")
    parser.add_argument("--file", metavar="FILE", help="read the problem from a file")
    team = parser.add_argument_group("team")
    team.add_argument("-w", "--workers", metavar="N|NAMES", help="how many, or names with commas between")
    _program(team, "how they work: a name of `kvorum programs`, or FILE.py:NAME of your own (default: hogwild)")
    team.add_argument("--layout", metavar="NAME", help="hogwild: combined (default), interleaved or contiguous")
    team.add_argument("--answer", metavar="KIND", help="boxed (default), code or text")
    param = team.add_argument(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter of the program; `kvorum programs hogwild` shows hogwild's",
    )
    completed_by(param, parameter_names)
    limits = parser.add_argument_group("budget and sampling")
    limits.add_argument(
        "-b", "--budget", metavar="LIMITS", help="ticks (default: 512), or limits such as ticks=512,seconds=60"
    )
    limits.add_argument("--seed", metavar="N", type=int, help="same seed, same tokens (default: 0)")
    limits.add_argument("--temperature", metavar="T", type=float, default=0.6, help="0 is greedy (default: 0.6)")
    limits.add_argument("--top-p", metavar="P", type=float, default=0.95, help="nucleus sampling (default: 0.95)")
    model = parser.add_argument_group("model")
    _model(model)
    _weights(model)
    parser.add_argument("-t", "--trace", metavar="FILE", help="write what happens to FILE, for `kvorum replay`")
    _shown(parser)


def _program(group: argparse._ActionsContainer, words: str, *, action: str = "store") -> None:
    named = group.add_argument("-p", "--program", metavar="NAME", action=action, help=words)
    completed_by(named, program_names)


def _weights(group: argparse._ActionsContainer) -> None:
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--exact", action="store_true", help="float32 weights, nothing quantised")
    weights.add_argument("--quantize", metavar="FORMAT", help="auto (default), none, or packed: small, fast weights")


def _model(group: argparse._ActionsContainer) -> None:
    named = group.add_argument(
        "-m",
        "--model",
        metavar="NAME",
        help="a name of `kvorum models`, folder, GGUF file or hub id (default: the strongest that fits in memory)",
    )
    completed_by(named, model_names)
    _cache(group)
    _cache_dtype(group)


def _cache_dtype(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--kv-dtype",
        choices=("auto", "float32", "float16"),
        default="auto",
        help="what the KV cache holds (default: what the model computes in; float16 is half of float32)",
    )


def _cache(group: argparse._ActionsContainer) -> None:
    group.add_argument("--kv-tokens", metavar="N", type=int, help="how many tokens the KV cache holds (default: 65536)")


def _replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a trace, made by `kvorum solve --trace FILE`")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    parser.add_argument("--show", action="store_true", help="play it without the model")
    parser.add_argument(
        "--speed", metavar="X", type=float, default=1.0, help="with --show: so many times as fast; 0: at once"
    )
    parser.add_argument(
        "--hold", metavar="SECONDS", type=float, default=0.0, help="with --show: how long the last picture stays"
    )
    parser.add_argument("-m", "--model", metavar="NAME", help="the same model, where it has moved")
    _program(parser, "the same program of your own, where it has moved: FILE.py:NAME")
    _cache(parser.add_argument_group("model"))
    _shown(parser)
