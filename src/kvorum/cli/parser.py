"""The command line: every command with its options. Wrong use is one sentence on standard error and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version

from kvorum.cli.completion import complete
from kvorum.cli.options import (
    agent,
    ask,
    bench,
    chat,
    crew,
    decide,
    demo,
    fields,
    follow,
    lists,
    mcp,
    memory,
    replay,
    serve,
    skills,
    solve,
    study,
)
from kvorum.cli.options.groups import Parser, add_parsers
from kvorum.wording import unknown

COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "solve": ("let a team of workers solve a problem", solve.add_options),
    "ask": ("answer many questions of files side by side; what was read is kept", ask.add_options),
    "agent": ("let a worker call tools, of your own and of MCP servers, until the task is done", agent.add_options),
    "crew": ("let several workers go through the steps of a crew file, with one memory and board", crew.add_options),
    "chat": ("talk about files, or without any; ask on while an answer is being written", chat.add_options),
    "decide": ("answer typed questions about a file by probabilities, all at once", decide.add_options),
    "fields": ("fill in a form, a JSON schema, from a text or from many", fields.add_options),
    "memory": ("keep what was learnt, find it, replace it, forget it", memory.add_options),
    "skills": ("list skills, show one, or check folders of skills", skills.add_options),
    "models": ("list the models known by name, or show one", lists.add_models),
    "pull": ("fetch a model; an interrupted pull goes on where it stopped", lists.add_pull),
    "check": ("compare a model with its file, and see that it reads plain English", lists.add_check),
    "doctor": (
        "look at this machine: kernels, memory, models, packages, and what brings what is missing",
        lists.add_doctor,
    ),
    "programs": ("list the programs (ways of organising workers), or the parameters of one", lists.add_programs),
    "replay": ("run a trace again and compare every token; or go on with it, or show it", replay.add_options),
    "serve": (
        "serve a model: OpenAI-compatible, with live runs of programs and a page to watch them",
        serve.add_options,
    ),
    "follow": ("take part, as a further machine, in a model that runs on several", follow.add_options),
    "mcp": ("offer a running server's blocks and programs to an editor, as MCP over stdio", mcp.add_options),
    "study": (
        "run many teams and controls on generated problems; tables, statistics, pictures",
        study.add_options,
    ),
    "bench": ("measure ticks on this machine, beside other engines on the same weights", bench.add_options),
    "demo": ("show what it is good for, in two minutes, on a text that ships with it", demo.add_options),
    "completion": ("print a script for your shell that completes all of this", lists.add_completion),
}
"""Each command by name, in the order of the help: what it does, and what adds its options."""
ACTIONS = {"study": study.ACTIONS, "memory": memory.ACTIONS, "skills": skills.ACTIONS}
"""The actions of commands that have some."""


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
    if len(words) > 1 and words[1] not in (actions := ACTIONS.get(words[0], {words[1]: ""})):
        if words[0] == "study" and words[1].endswith((".yaml", ".yml", ".py")):
            parser.exit(2, f"kvorum: Say what to do with {words[1]}: kvorum study run {words[1]}\n")
        parser.exit(2, f"kvorum: {unknown('action', words[1], actions, owner=f'kvorum {words[0]}')}\n")


def make_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="kvorum",
        description="Many rows over one KV cache: questions of a text, forms, decisions, teams of workers.",
        epilog='Try: kvorum solve "What is 12 * 17?" --model smollm2-135m',
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kvorum {version('kvorum')}")
    made = add_parsers(parser, "command", {name: summary for name, (summary, _) in COMMANDS.items()})
    for name, (_, add_options) in COMMANDS.items():
        add_options(made[name])
    return parser
