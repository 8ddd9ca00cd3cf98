"""Reading what was typed: the problem, the workers, the budget, further parameters.

What each may be is decided where it is used (the engine's Budget, Sampling, worker names); here text becomes values.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from kvorum.engine.budget import Budget
from kvorum.errors import BadRequest, ModelFileError, UnknownName
from kvorum.wording import unknown

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.runs.parameters import Value
    from kvorum.runs.program import Program

LIMITS = ("ticks", "decoded", "prefill", "latent", "tokens", "seconds")


class LoadOptions(TypedDict, total=False):
    """What ``Engine.load`` is given besides the model."""

    dtype: str
    kv_dtype: str
    quantize: str | None
    kv_tokens: int
    page_size: int
    prefill_chunk: int


def load_options(args: Namespace) -> LoadOptions:
    """What the options of the cache and of the weights mean to ``Engine.load``."""
    options = LoadOptions(kv_dtype=args.kv_dtype, kv_tokens=args.kv_tokens)
    if args.exact:
        return options | LoadOptions(dtype="float32", quantize=None)
    return options | LoadOptions(quantize=None if args.quantize == "none" else args.quantize)


def read_problem(words: str | None, file: str | None) -> str:
    """The problem from the argument, a file, or standard input ("-", or no argument and a pipe)."""
    if words is not None and file is not None:
        raise BadRequest("Give the problem either as an argument or with --file, not both.")
    try:
        if file is not None:
            text = Path(file).read_bytes().decode("utf-8")
        elif words == "-" or (words is None and not sys.stdin.isatty()):
            text = sys.stdin.buffer.read().decode("utf-8")
        elif words is None:
            raise BadRequest('Say what to solve: kvorum solve "PROBLEM", or --file FILE, or - for standard input.')
        else:
            text = words
            text.encode()  # bytes of the command line that are no UTF-8 stand in it as surrogates
    except UnicodeError as error:
        where = f" in {file}" if file is not None else "" if words not in (None, "-") else " in standard input"
        raise BadRequest(f"The problem{where} is not UTF-8 text.") from error
    except OSError as error:
        raise BadRequest(f"The problem cannot be read from {file}: {error.strerror}.") from error
    if not text.strip():
        raise BadRequest("The problem is empty; say what to solve.")
    return text


def parse_workers(words: str | None) -> int | list[str] | None:
    """``4`` or ``Ann,Ben``; None where nothing was said. The engine checks the number and the names."""
    if words is None:
        return None
    text = words.strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        float(text)
    except ValueError:
        return [name.strip() for name in text.split(",")]
    raise BadRequest(f"{text} workers are not possible; give a whole number, or names with commas between.")


def parse_budget(words: str | None) -> Budget | None:
    """``512`` (ticks) or ``ticks=512,seconds=60``; None where nothing was said.

    Raises:
        BadRequest: not a number, or nothing to spend. UnknownName: there is no such limit.
    """
    if words is None:
        return None
    limits: dict[str, str] = {}
    for part in words.split(","):
        name, given, value = (piece.strip() for piece in part.rpartition("="))
        name = name if given else "ticks"
        if name not in LIMITS:
            raise UnknownName(unknown("limit", name, LIMITS, owner="A budget"))
        if name in limits:
            raise BadRequest(f"The budget {words!r} gives its {name} twice; give each limit once.")
        limits[name] = value.replace("_", "")
    seconds = limits.pop("seconds", None)
    try:
        counts = {name: int(value) for name, value in limits.items()}
        return Budget(seconds=None if seconds is None else float(seconds), **counts)
    except BadRequest:
        raise
    except ValueError as error:
        raise BadRequest(
            f"The budget {words!r} is not a number; give ticks, as in 512, or limits, as in ticks=512,seconds=60."
        ) from error


def read_params(program: Program, pairs: Sequence[str], named: Mapping[str, str | None]) -> dict[str, Value]:
    """``--param NAME=VALUE`` and the options that are parameters too, as the program declares them, checked.

    Raises:
        BadRequest, UnknownName: a parameter that the program has not, or of another kind; the message says which.
    """
    from kvorum.runs.parameters import parse_parameter

    texts = {name: value for name, value in named.items() if value is not None}
    for pair in pairs:
        name, given, value = (piece.strip() for piece in pair.partition("="))
        if not given:
            raise BadRequest(f"--param {pair!r} needs a value: --param NAME=VALUE.")
        texts[name] = value
    params = {name: parse_parameter(program.parameter(name), text) for name, text in texts.items()}
    program.check(params)
    return params


def check_writable(file: str) -> Path:
    """The path of a file that will be written, found out now, not after all is done. Leaves no file behind.

    Raises:
        BadRequest: its folder is not there. OSError: it cannot be written.
    """
    path = Path(file)
    if not path.absolute().parent.is_dir():
        raise BadRequest(f"The folder of {file} does not exist; make it or name another.")
    fresh = not path.exists()
    with path.open("a", encoding="utf-8"):
        pass
    if fresh:
        path.unlink()
    return path


def choose_model(name: str | None) -> str:
    """``check_model`` of what was asked for, or the strongest model of the catalogue that fits in memory."""
    from kvorum.models.catalogue import strongest_that_fits

    return strongest_that_fits().name if name is None else check_model(name)


def check_model(name: str) -> str:
    """The model's name as a trace keeps it: an absolute path for what exists, otherwise the name, if it can be one."""
    from kvorum.models.catalogue import CATALOGUE, lookup

    path = Path(name).expanduser()
    if path.exists():
        return str(path.resolve())
    if name.startswith((".", "~", os.sep)) or (name.endswith(".gguf") and ":" not in name):
        raise ModelFileError(f"There is no file or folder {name}.")
    if os.sep not in name and name not in CATALOGUE:
        lookup(name)  # raises UnknownName with the near ones
    return name
