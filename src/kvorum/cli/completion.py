"""Completion of the command line in a shell.

`kvorum completion SHELL` prints a script for bash, zsh or fish that asks the command itself: the shell then starts
`kvorum` with ``_ARGCOMPLETE`` set, which answers from the parser, without torch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable


def completion(args: argparse.Namespace) -> int:
    """Print the script for the shell."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["kvorum"], shell=args.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Where a shell asks, answer it and end the process."""
    if "_ARGCOMPLETE" in os.environ:
        from argcomplete import autocomplete

        autocomplete(parser, always_complete_options="long")


def completed_by(action: argparse.Action, names: Callable[[argparse.Namespace], Iterable[str]]) -> None:
    """Let the values of an argument be completed by ``names``, which gets what stands before it."""
    action.completer = lambda parsed_args, **_: names(parsed_args)  # type: ignore[attr-defined]


def model_names(args: argparse.Namespace) -> Iterable[str]:
    """The catalogue's names."""
    from kvorum.models.catalogue import CATALOGUE

    return list(CATALOGUE)


def program_names(args: argparse.Namespace) -> Iterable[str]:
    """The programs' names."""
    from kvorum.cli import programs

    return programs.program_names()


def parameter_names(args: argparse.Namespace) -> Iterable[str]:
    """The parameters of the program that was named, as far as they are known without importing it."""
    from kvorum.cli.programs import described

    params = described(wait=False).get(args.program or "plain", {}).get("params")
    return [f"{parameter['name']}=" for parameter in params] if isinstance(params, list) else []
