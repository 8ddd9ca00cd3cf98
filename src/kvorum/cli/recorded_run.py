"""A run made again from its trace: what the start event says of it, as the parts that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kvorum.cli.arguments import LoadOptions, check_model
from kvorum.errors import BadRequest, BadTrace, ProgramError

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine
    from kvorum.runs.program import Program
    from kvorum.runs.result import Result
    from kvorum.runs.run import Run
    from kvorum.store.events import Event, ModelData, StartEvent, TaskData

_SHAPE: dict[str, type] = {
    "program": str,
    "task": dict,
    "workers": list,
    "budget": dict,
    "sampling": dict,
    "seed": int,
    "model": dict,
    "params": dict,
    "versions": dict,
}
_MODEL_SHAPE: dict[str, type] = {"name": str, "dtype": str, "weights": str, "kv_tokens": int, "page_size": int}


class RecordedRun:
    """The run of ``args.file``, whose tokens are taken from its events; a `runner.PlannedRun`.

    ``args`` may say where its model and its program are now. With ``args.resume`` the trace file grows with it.

    Raises:
        BadTrace: the start event holds what no run takes.
    """

    def __init__(self, args: Namespace, events: Sequence[Event]) -> None:
        from kvorum.engine.budget import Budget
        from kvorum.runs.injection import Injection
        from kvorum.runs.program import Task
        from kvorum.sampling.sampling import Sampling

        start = self.start = checked_start(events[0], args.file)
        task = start["task"]
        about = start["model"]
        self.args, self.events = args, events
        self.trace: str | None = args.file if args.resume else None
        self.model = check_model(about["name"] if args.model is None else args.model)
        self.options = LoadOptions(
            dtype=about["dtype"],
            kv_dtype=about.get("kv_dtype", "auto"),
            quantize=None if about["weights"] == "exact" else about["weights"],
            kv_tokens=about["kv_tokens"] if args.kv_tokens is None else args.kv_tokens,
            page_size=about["page_size"],
            prefill_chunk=about.get("prefill_chunk", 512),
        )
        try:
            self.task = Task(task["prompt"], name=task.get("name", ""), private=dict(task.get("private", {})))
            self.budget = Budget(**start["budget"])
            self.sampling = Sampling(**start["sampling"])
            self.inject = [Injection(**given) for given in start.get("inject", [])]
            self.reseed = [(int(tick), int(seed)) for tick, seed in start.get("reseed", [])]
        except (BadRequest, TypeError, ValueError) as error:
            why = str(error).rstrip(".")
            raise BadTrace(
                f"The first line of {args.file} holds what no run takes ({why}); the trace is damaged."
            ) from error

    def check(self) -> None:
        """Raises UnknownName or ProgramError, before the model is loaded, where the program is not there."""
        self._program()

    def run(self, engine: Engine, listener: Callable[[Event], None], control: Callable[[Run], None]) -> Result:
        """Run it again.

        Raises:
            BadTrace: the engine computes other tokens than the trace's would, or the run differs from it.
        """
        self._check_engine(engine)
        return engine.run(
            self._program(),
            self.task,
            workers=self.start["workers"],
            seed=self.start["seed"],
            budget=self.budget,
            sampling=self.sampling,
            inject=self.inject,
            reseed=self.reseed,
            replay=self.events,
            trace=self.trace,
            listener=listener,
            control=control,
            **self.start["params"],  # type: ignore[arg-type]
        )

    def _program(self) -> Program:
        from kvorum.programs import load

        try:
            return load(self.args.program or self.start.get("where") or self.start["program"])
        except ProgramError as error:
            error.add_note("The trace names this program; where it is elsewhere now, say so: -p FILE.py:NAME.")
            raise

    def _check_engine(self, engine: Engine) -> None:
        about, there = engine.about(), self.start["model"]
        here, then = ((model["name"], model["dtype"], model["weights"]) for model in (about, there))
        same = here == then if self.args.model is None else here[1:] == then[1:]  # who says where it is knows its name
        if not same:
            raise BadTrace(
                f"The trace was made with {then[0]} ({then[1]}, weights {then[2]}) and this is "
                f"{here[0]} ({here[1]}, weights {here[2]}): the tokens would differ."
            )


def checked_start(start: Event, file: str) -> StartEvent:
    """The start event. Raises BadTrace if it cannot be run again."""
    if start["event"] != "start":
        raise BadTrace(f"The first line of {file} does not say the run's start; the trace is damaged.")
    lack = _lack(start, _SHAPE) or _lack(start["task"], {"prompt": str}, "task's ")
    lack = lack or _lack(start["model"], _MODEL_SHAPE, "model's ")
    if lack is not None:
        raise BadTrace(f"The first line of {file} does not say the run's {lack}; the trace is damaged.")
    if not all(isinstance(name, str) for name in start["workers"]):
        raise BadTrace(f"The first line of {file} has workers whose names are no text; the trace is damaged.")
    return start


def _lack(there: StartEvent | TaskData | ModelData, shape: Mapping[str, type], whose: str = "") -> str | None:
    """The first thing of that shape which is not there, or is of another kind."""
    return next((whose + name for name, kind in shape.items() if not isinstance(there.get(name), kind)), None)
