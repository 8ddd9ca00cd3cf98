"""`kvorum solve`: let a team solve a problem.

What was typed becomes values here; what each may be is decided where it is used (`Budget`, `Sampling`, names, the
program's declaration).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import check_writable, choose_model, is_exact, load_options
from kvorum.cli.planned_run import perform
from kvorum.cli.programs import check_name
from kvorum.engine.budget import Budget
from kvorum.errors import BadRequest
from kvorum.wording import check_known

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine
    from kvorum.runs.parameters import Value
    from kvorum.runs.program import Program
    from kvorum.runs.run import Run
    from kvorum.runs.start import Result
    from kvorum.sampling.sampling import Sampling
    from kvorum.store.events import Event
    from kvorum.store.kept_blocks import KeptBlocks

LIMITS = ("ticks", "decoded", "prefill", "latent", "tokens", "seconds")


def solve(args: Namespace) -> int:
    """Run a program on a problem, or say which one is likely to pay. Returns the exit code: 1 where nobody answered."""
    if args.best:
        from kvorum.cli.best import best

        return best(args, read_problem(args.problem, args.file))
    return perform(args, NewRun(args))


class NewRun:
    """The run that `kvorum solve` was asked for; a `runner.PlannedRun`.

    Raises as it is made for what can be told without any library.
    """

    program: Program
    params: dict[str, Value]
    sampling: Sampling
    kept: KeptBlocks | None = None
    """Where texts that were encoded before are found; None: none are kept."""

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.problem = read_problem(args.problem, args.file)
        if args.program is not None:
            check_name(args.program)
        self.budget, self.workers = parse_budget(args.budget), parse_workers(args.workers)
        self.model, self.options = choose_model(args.model, exact=is_exact(args)), load_options(args)
        self.trace: str | None = args.trace
        if args.trace is not None:
            check_writable(args.trace)

    def check(self) -> None:
        """The program with its parameters, the workers and the sampling."""
        from kvorum.programs import DEFAULT, load
        from kvorum.runs.worker import choose_names
        from kvorum.sampling.sampling import Sampling

        self.program = load(self.args.program or DEFAULT)
        self.params = read_params(self.program, self.args.param)
        names = choose_names(self.program.workers_of(self.workers, self.params))
        if self.args.program is None and len(names) > self.program.most_workers:
            raise BadRequest(
                f"{len(names)} workers need a program, -p NAME: `kvorum programs` lists ways to work together."
            )
        self.program.check(self.params, workers=len(names))
        basis = Sampling(temperature=self.args.temperature, top_p=self.args.top_p)
        self.sampling = read_sampling(basis, self.args.sampling)

    def run(self, engine: Engine, listener: Callable[[Event], None], control: Callable[[Run], None]) -> Result:
        """Make the run; each of its events goes to ``listener``, the run itself to ``control``."""
        return engine.run(
            self.program,
            self.problem,
            workers=self.workers,
            budget=self.budget,
            sampling=self.sampling,
            seed=self.args.seed,
            thinking=self.args.thinking,
            trace=self.trace,
            listener=listener,
            control=control,
            kept=self.kept,
            **self.params,  # type: ignore[arg-type]
        )


def read_problem(words: str | None, file: str | None) -> str:
    """The problem from the argument, a file, or standard input ("-", or no argument and a pipe)."""
    if words is not None and file is not None:
        raise BadRequest("Give the problem either as an argument or with --file, not both.")
    if words is None and file is None and sys.stdin.isatty():
        raise BadRequest('Say what to solve: kvorum solve "PROBLEM", or --file FILE, or - for standard input.')
    where = ""
    try:
        if file is not None:
            where, data = f" in {file}", Path(file).read_bytes()
        elif words is None or words == "-":
            where, data = " in standard input", sys.stdin.buffer.read()
        else:
            data = os.fsencode(words)  # bytes of the command line that are no UTF-8 stand in it as surrogates
        text = data.decode("utf-8-sig")  # without the mark that some editors put before a text
    except UnicodeError as error:
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
    with suppress(ValueError):
        return int(text)
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
        check_known("limit", name, LIMITS, owner="A budget")
        if name in limits:
            raise BadRequest(f"The budget {words!r} gives its {name} twice; give each limit once.")
        limits[name] = value
    seconds = limits.pop("seconds", None)
    try:
        time = None if seconds is None else float(seconds)
        counts = {name: int(value) for name, value in limits.items()}
    except ValueError as error:
        raise BadRequest(
            f"The budget {words!r} is not a number; give ticks, as in 512, or limits, as in ticks=512,seconds=60."
        ) from error
    return Budget(seconds=time, **counts)


def read_sampling(basis: Sampling, pairs: Sequence[str]) -> Sampling:
    """``basis`` with what ``NAME=VALUE`` pairs say: fields of ``Sampling``, as in JSON; the last of a name counts.

    Raises:
        BadRequest, UnknownName: a field that there is not, or a value that it does not take; the message says which.
    """
    names = [field.name for field in fields(basis)]
    given = {}
    for pair in pairs:
        name, _, value = (piece.strip() for piece in pair.partition("="))
        check_known("field", name, names, owner="A sampling")
        try:
            given[name] = json.loads(value)
        except ValueError as error:
            raise BadRequest(
                f"--sampling {pair!r} has no value that can be read; give one as in repetition_penalty=1.1, "
                """or, of several parts, as JSON: logit_bias={"42": -5}."""
            ) from error
    return replace(basis, **given)


def read_params(program: Program, pairs: Sequence[str]) -> dict[str, Value]:
    """What ``NAME=VALUE`` pairs mean as the program declares its parameters, checked. The last of a name counts.

    Raises:
        BadRequest, UnknownName: a parameter that the program has not, or of another kind; the message says which.
    """
    from kvorum.runs.parameters import parse_parameter

    texts = {}
    for pair in pairs:
        name, given, value = (piece.strip() for piece in pair.partition("="))
        if not given:
            raise BadRequest(f"--param {pair!r} needs a value: --param NAME=VALUE.")
        texts[name] = value
    params = {name: parse_parameter(program.parameter(name), text) for name, text in texts.items()}
    program.check(params)
    return params
