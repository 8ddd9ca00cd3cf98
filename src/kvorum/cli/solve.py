"""`kvorum solve`: let a team solve a problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvorum.cli.arguments import (
    check_writable,
    choose_model,
    load_options,
    parse_budget,
    parse_workers,
    read_params,
    read_problem,
)
from kvorum.cli.program_list import check_name
from kvorum.cli.runner import perform

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from kvorum.api import Engine
    from kvorum.runs.parameters import Value
    from kvorum.runs.program import Program
    from kvorum.runs.run import Run
    from kvorum.sampling.sampling import Sampling
    from kvorum.store.events import Event


def solve(args: Namespace) -> int:
    """Run a program on a problem. Returns the exit code: 1 where nobody gave an answer."""
    return perform(args, NewRun(args))


class NewRun:
    """The run that `kvorum solve` was asked for; a `runner.PlannedRun`.

    Raises as it is made for what can be told without any library.
    """

    program: Program
    params: dict[str, Value]
    sampling: Sampling

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.problem = read_problem(args.problem, args.file)
        if args.program is not None:
            check_name(args.program)
        self.budget, self.workers = parse_budget(args.budget), parse_workers(args.workers)
        self.model, self.options = choose_model(args.model), load_options(args)
        self.trace: str | None = args.trace
        if args.trace is not None:
            check_writable(args.trace)

    def check(self) -> None:
        """The program with its parameters, the workers and the sampling."""
        from kvorum.programs import DEFAULT, load
        from kvorum.runs.worker import choose_names
        from kvorum.sampling.sampling import Sampling

        self.program = load(self.args.program or DEFAULT)
        self.params = read_params(
            self.program, self.args.param, {"layout": self.args.layout, "answer": self.args.answer}
        )
        names = choose_names(self.program.default_workers if self.workers is None else self.workers)
        self.program.check_workers(len(names))
        self.sampling = Sampling(temperature=self.args.temperature, top_p=self.args.top_p)

    def run(self, engine: Engine, listener: Callable[[Event], None], control: Callable[[Run], None]) -> float:
        """Run it. Returns its seconds."""
        result = engine.run(
            self.program,
            self.problem,
            workers=self.workers,
            budget=self.budget,
            sampling=self.sampling,
            seed=self.args.seed,
            trace=self.trace,
            listener=listener,
            control=control,
            **self.params,  # type: ignore[arg-type]
        )
        return result.seconds
