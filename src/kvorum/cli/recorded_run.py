"""What the first event of a trace says of its run, as the parts that the run is made of again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvorum.cli.arguments import check_model
from kvorum.errors import BadRequest, BadTrace, ProgramError

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine
    from kvorum.cli.arguments import LoadOptions
    from kvorum.engine.budget import Budget
    from kvorum.runs.injection import Injection
    from kvorum.runs.program import Program, Task
    from kvorum.runs.result import Result
    from kvorum.runs.run import Run
    from kvorum.sampling.sampling import Sampling
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


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run as its trace begins with it, and the trace's events. ``program``: of what name, or of which file."""

    start: StartEvent
    events: Sequence[Event]
    program: str
    task: Task
    budget: Budget
    sampling: Sampling
    inject: list[Injection]
    reseed: list[tuple[int, int]]

    @classmethod
    def of(cls, start: StartEvent, events: Sequence[Event], args: Namespace) -> RecordedRun:
        """From a trace's events; the program of ``args`` takes the place of the one that the trace names.

        Raises:
            BadTrace: the start event holds what no run takes.
        """
        from kvorum.engine.budget import Budget
        from kvorum.runs.injection import Injection
        from kvorum.runs.program import Task
        from kvorum.sampling.sampling import Sampling

        task = start["task"]
        try:
            return cls(
                start=start,
                events=events,
                program=args.program or start.get("where") or start["program"],
                task=Task(task["prompt"], name=task.get("name", ""), private=dict(task.get("private", {}))),
                budget=Budget(**start["budget"]),
                sampling=Sampling(**start["sampling"]),
                inject=[Injection(**given) for given in start.get("inject", [])],
                reseed=[(int(tick), int(seed)) for tick, seed in start.get("reseed", [])],
            )
        except (BadRequest, TypeError, ValueError) as error:
            why = str(error).rstrip(".")
            raise BadTrace(
                f"The first line of {args.file} holds what no run takes ({why}); the trace is damaged."
            ) from error

    def model(self, args: Namespace) -> str:
        """The model's name, or that of ``args``, where it has moved."""
        return check_model(args.model if args.model is not None else self.start["model"]["name"])

    def options(self, args: Namespace) -> LoadOptions:
        """How the model was loaded."""
        about = self.start["model"]
        return {
            "dtype": about["dtype"],
            "kv_dtype": about.get("kv_dtype", "auto"),
            "quantize": None if about["weights"] == "exact" else about["weights"],
            "kv_tokens": args.kv_tokens if args.kv_tokens is not None else about["kv_tokens"],
            "page_size": about["page_size"],
            "prefill_chunk": about.get("prefill_chunk", 512),
        }

    def find(self) -> Program:
        """The run's program. Raises ProgramError where an own one is not where it was."""
        from kvorum.programs import load

        try:
            return load(self.program)
        except ProgramError as error:
            error.add_note("The trace names this program; where it is elsewhere now, say so: -p FILE.py:NAME.")
            raise

    def check(self) -> None:
        """Raises what `find` raises, before the model is loaded."""
        self.find()

    def run(
        self,
        engine: Engine,
        *,
        same_name: bool,
        listener: Callable[[Event], None] | None = None,
        control: Callable[[Run], None] | None = None,
        trace: str | None = None,
    ) -> Result:
        """Run it again; the tokens of the events are taken from there. ``same_name``: the model's must be the same.

        Raises:
            BadTrace: the engine computes other tokens than the trace's would, or the run differs from it.
        """
        self._check_engine(engine, same_name)
        return engine.run(
            self.find(),
            self.task,
            workers=self.start["workers"],
            seed=self.start["seed"],
            budget=self.budget,
            sampling=self.sampling,
            inject=self.inject,
            reseed=self.reseed,
            replay=self.events,
            trace=trace,
            listener=listener,
            control=control,
            **self.start["params"],  # type: ignore[arg-type]
        )

    def _check_engine(self, engine: Engine, same_name: bool) -> None:
        about, there = engine.about(), self.start["model"]
        here, then = ((model["name"], model["dtype"], model["weights"]) for model in (about, there))
        if (here if same_name else here[1:]) != (then if same_name else then[1:]):
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
