"""The command line: every command with its options. Wrong use is one sentence on standard error and exit code 2."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib.metadata import version
from typing import NoReturn

from kvorum.cli.completion import complete, completed_by, model_names, parameter_names, program_names
from kvorum.wording import unknown

COMMANDS = {
    "solve": "let a team of workers solve a problem",
    "models": "list the models known by name, or show one",
    "pull": "fetch a model; an interrupted pull goes on where it stopped",
    "check": "compare a model with its file, and see that it reads plain English",
    "programs": "list the programs (ways of organising workers), or the parameters of one",
    "replay": "run a trace again and compare every token; or go on with it, or show it",
    "serve": "serve a model: OpenAI-compatible, with live runs of programs and a page to watch them",
    "study": "run many teams and controls on generated problems; tables, statistics, pictures",
    "bench": "measure ticks on this machine, beside other engines on the same weights",
    "completion": "print a script for your shell that completes all of this",
}
SHELLS = ("bash", "zsh", "fish")
STUDY_ACTIONS = {
    "run": "run all cells that are not done yet; an interrupted study goes on where it stopped",
    "report": "write report.html and report.md from the table of a study",
    "attention": "write attention.html and attention.md: heat maps of whose words the workers attended to",
    "variance": "take the variance of the scores apart: tokens, program, channel, workers, model, task",
    "faults": "inject faults, watch with the detectors, write their precision and recall",
}


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors read as all errors of kvorum do."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"kvorum: {message}; see `{self.prog} --help`\n")
        raise SystemExit(2)


def parse(argv: list[str]) -> argparse.Namespace:
    """The parsed command line; ``command`` is one of COMMANDS. Exits with 2 on wrong use."""
    parser = make_parser()
    complete(parser)
    _check_names(parser, [word for word in argv if not word.startswith("-")])
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return args


def _check_names(parser: Parser, words: list[str]) -> None:
    """argparse lists all commands and actions for an unknown one; say what was meant."""
    if words and words[0] not in COMMANDS:
        parser.exit(2, f"kvorum: {unknown('command', words[0], COMMANDS)}\n")
    if words[:1] == ["study"] and len(words) > 1 and words[1] not in STUDY_ACTIONS:
        if words[1].endswith((".yaml", ".yml", ".py")):
            parser.exit(2, f"kvorum: Say what to do with {words[1]}: kvorum study run {words[1]}\n")
        parser.exit(2, f"kvorum: {unknown('action', words[1], STUDY_ACTIONS, owner='kvorum study')}\n")


def make_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="kvorum",
        description="Several LLM workers think at the same time over one KV cache.",
        epilog='Try: kvorum solve "What is 12 * 17?" --workers 4 --model smollm2-135m',
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kvorum {version('kvorum')}")
    made = _parsers(parser, "command", COMMANDS)
    completed_by(
        made["pull"].add_argument("name", metavar="NAME", help="a name of `kvorum models`, or a hub id (org/name)"),
        model_names,
    )
    words = "accept the licence of a model that asks for it (gemma3-270m), without being asked"
    made["pull"].add_argument("--accept-licence", action="store_true", help=words)
    words = "show this one, with the self-checks that it has passed here"
    completed_by(made["models"].add_argument("name", metavar="NAME", nargs="?", help=words), model_names)
    _check(made["check"])
    completed_by(
        made["programs"].add_argument("name", metavar="NAME", nargs="?", help="show what this one's parameters may be"),
        program_names,
    )
    made["completion"].add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    _solve(made["solve"])
    _replay(made["replay"])
    _serve(made["serve"])
    _study(made["study"])
    _bench(made["bench"])
    return parser


def _parsers(above: Parser, kind: str, summaries: dict[str, str]) -> dict[str, Parser]:
    """A parser for each command, or action of a command, with the options that all have."""
    below = above.add_subparsers(dest=kind, metavar=kind.upper(), parser_class=Parser, required=kind == "action")
    made = {}
    for name, summary in summaries.items():
        made[name] = below.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        made[name].add_argument("--json", action="store_true", help="print one JSON object (or list) for machines")
        made[name].add_argument("--debug", action="store_true", help="on an error, show where it came from")
    return made


def _solve(parser: Parser) -> None:
    parser.add_argument("problem", metavar="PROBLEM", nargs="?", help="what to solve; - reads standard input")
    parser.add_argument("--file", metavar="FILE", help="read the problem from a file")
    team = parser.add_argument_group("team")
    add = team.add_argument
    add("-w", "--workers", metavar="N|NAMES", help="how many, or names with commas between")
    _program(team, "how they work: a name of `kvorum programs`, or FILE.py:NAME of your own (default: hogwild)")
    add = partial(team.add_argument, dest="param", action="append", default=[])
    add("--layout", metavar="NAME", type="layout={}".format, help="hogwild: combined, interleaved or contiguous")
    add("--answer", metavar="KIND", type="answer={}".format, help="boxed (default), code or text")
    words = "a parameter of the program; `kvorum programs hogwild` shows hogwild's"
    completed_by(add("--param", metavar="NAME=VALUE", help=words), parameter_names)
    add = parser.add_argument_group("budget and sampling").add_argument
    add("-b", "--budget", metavar="LIMITS", help="ticks (default: 512), or limits such as ticks=512,seconds=60")
    add("--seed", metavar="N", type=int, help="same seed, same tokens (default: 0)")
    add("--temperature", metavar="T", type=float, default=0.6, help="0 is greedy (default: 0.6)")
    add("--top-p", metavar="P", type=float, default=0.95, help="nucleus sampling (default: 0.95)")
    add("--thinking", action=argparse.BooleanOptionalAction, help="think first, or not, where the model has a switch")
    _model(parser.add_argument_group("model"))
    parser.add_argument("-t", "--trace", metavar="FILE", help="write what happens to FILE, for `kvorum replay`")
    _output(parser)


def _check(parser: Parser) -> None:
    words = "a name of `kvorum models`, folder, GGUF file or hub id"
    completed_by(parser.add_argument("name", metavar="NAME", help=words), model_names)
    _weights(parser)


def _replay(parser: Parser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help="a trace, made by `kvorum solve --trace FILE`")
    add("--resume", action="store_true", help="go on with an unfinished run")
    add("--show", action="store_true", help="play it without the model")
    add("--speed", metavar="X", type=float, default=1.0, help="with --show: so many times as fast; 0: at once")
    add("--hold", metavar="SECONDS", type=float, default=0.0, help="with --show: how long the last picture stays")
    add("-m", "--model", metavar="NAME", help="the same model, where it has moved")
    _program(parser, "the same program of your own, where it has moved: FILE.py:NAME")
    _cache(parser.add_argument_group("model"), None)
    _ignore_unknown(parser)
    _output(parser)


def _serve(parser: Parser) -> None:
    _model(parser)
    _program(parser, "offer this program of your own, too: FILE.py:NAME or PACKAGE.MODULE:NAME", action="append")
    add = parser.add_argument_group("place").add_argument
    add("--host", metavar="ADDRESS", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    add("--port", metavar="N", type=int, default=8000, help="0 takes a free one (default: 8000)")
    add("--api-key", metavar="KEY", help="what clients must send; needed beyond this machine")
    add("--name", metavar="HOST", action="append", default=[], help="a further name under which clients may reach it")
    add("--root-path", metavar="PATH", default="", help="the path under which a proxy shows it, as in /kvorum")
    add("--store", metavar="FOLDER", help="where runs are kept (default: in the cache folder)")
    add = parser.add_argument_group("limits").add_argument
    add("--max-workers", metavar="N", type=int, help="workers of a run (16)")
    add("--max-ticks", metavar="N", type=int, help="ticks of a run (4096)")
    add("--max-prompt", dest="max_prompt_tokens", metavar="N", type=int, help="tokens of a prompt (16384)")
    add("--max-rows", metavar="N", type=int, help="rows that share a tick (128)")
    add("--drain", metavar="SECONDS", type=float, default=5.0, help="for replies to end in when it is stopped (5)")
    add("--max-waiting", metavar="N", type=int, help="requests that may wait; more get 429 (256)")


def _study(parser: Parser) -> None:
    actions = _parsers(parser, "action", STUDY_ACTIONS)
    _ignore_unknown(actions["faults"])
    add = actions.pop("faults").add_argument
    add("-o", "--output", metavar="FOLDER", default="faults-results", help="of the results")
    add("--dev", metavar="N", type=int, default=8, help="seeds for development, from 0 on (8)")
    add("--seeds", metavar="N", type=int, default=20, help="held-out seeds behind them (20)")
    words = "let this model write too, on --model-seeds of each kind (default: none; scripted workers alone)"
    add("-m", "--model", metavar="NAME", default="none", help=words)
    add("--model-dev", metavar="N", type=int, default=2, help="development seeds for the model (2)")
    add("--model-seeds", metavar="N", type=int, default=6, help="held-out seeds for the model (6)")
    add("--scenarios", "--worlds", metavar="NAMES", help="some scenarios only, with commas")
    for action in actions.values():
        action.add_argument(
            "file", metavar="FILE", help="the study, in YAML or in Python, which is run; see docs/lab.md"
        )
        action.add_argument("-o", "--output", metavar="FOLDER", help="of the results (default: NAME-results)")
    _ignore_unknown(actions["run"])
    actions["variance"].add_argument(
        "--draws", metavar="N", type=int, default=200, help="bootstrap draws of items (200)"
    )


def _bench(parser: Parser) -> None:
    add = parser.add_argument
    completed_by(
        add("-m", "--model", metavar="NAME", default="smollm2-135m", help="default: smollm2-135m"), model_names
    )
    add("--exact", action="store_true", help="float32 weights, nothing quantised")
    _cache_dtype(parser)
    _ignore_unknown(parser)
    add = parser.add_argument_group("ticks and prefill, beside other engines").add_argument
    add("--context", metavar="N,N", default="256,1024,4096", help="shared tokens (256,1024,4096)")
    add("-w", "--workers", metavar="N,N", default="1,2,4,8,16", help="team sizes (1,2,4,8,16)")
    words = (
        "of llama.cpp (a copy of the context for each worker), llama.cpp-shared (one for all), transformers, vllm; or "
        "none (default: all that are installed)"
    )
    add("--peers", metavar="NAMES", default="llama.cpp,llama.cpp-shared,transformers,vllm", help=words)
    add("--repeats", metavar="N", type=int, default=9, help="timed ticks of each cell (9)")
    words = "an engine sits out from the step that takes it longer (120)"
    add("--limit", metavar="SECONDS", type=float, default=120, help=words)
    words = "engines that copy the context sit out where workers times context is above it (65536)"
    add("--heavy", metavar="TOKENS", type=int, default=65536, help=words)
    add = parser.add_argument_group("also").add_argument
    add("--spans", action="store_true", help="the same tokens in one span and in up to 256")
    add("--attention", action="store_true", help="attention alone, at 4,096 shared tokens")
    add("--teams", action="store_true", help="64 teams of four in one engine: tick, plan, memory")
    add("--quality", action="store_true", help="perplexity and likeliest tokens against the exact mode")
    add("--start", action="store_true", help="seconds to the first token of a later `kvorum solve`")
    add("--all", action="store_true", help="all of these")
    add = parser.add_argument_group("output").add_argument
    add("-o", "--output", metavar="FILE", help="write all figures to FILE as JSON")
    add("--plot", metavar="FILE", help="draw ticks and tokens per second into FILE (.png, .svg, .pdf)")


# -- options of several commands -----------------------------------------------------------------------------------


def _program(group: argparse._ActionsContainer, words: str, *, action: str = "store") -> None:
    completed_by(group.add_argument("-p", "--program", metavar="NAME", action=action, help=words), program_names)


def _model(group: argparse._ActionsContainer) -> None:
    words = "a name of `kvorum models`, folder, GGUF file or hub id (default: the strongest that fits in memory)"
    completed_by(group.add_argument("-m", "--model", metavar="NAME", help=words), model_names)
    _cache(group, 65536)
    _cache_dtype(group)
    _weights(group)


def _weights(group: argparse._ActionsContainer) -> None:
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--exact", action="store_true", help="float32 weights, nothing quantised")
    words = "auto (default), none, or packed: small, fast weights"
    weights.add_argument("--quantize", metavar="FORMAT", default="auto", help=words)
    _ignore_unknown(group)


def _ignore_unknown(group: argparse._ActionsContainer) -> None:
    group.add_argument("--ignore-unknown", action="store_true", help="run a GGUF file without what is not known of it")


def _cache(group: argparse._ActionsContainer, tokens: int | None) -> None:
    words = "how many tokens the KV cache holds (default: 65536)"
    group.add_argument("--kv-tokens", metavar="N", type=int, default=tokens, help=words)


def _cache_dtype(group: argparse._ActionsContainer) -> None:
    words = "what the KV cache holds (default: what the model computes in; float16 is half of float32)"
    group.add_argument("--kv-dtype", choices=("auto", "float32", "float16"), default="auto", help=words)


def _output(parser: Parser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument("-q", "--quiet", action="store_true", help="print the answer alone")
    output.add_argument("--plain", action="store_true", help="lines of text instead of panes, as in a pipe")
