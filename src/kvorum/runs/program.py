"""Tasks and programs: what a run is given."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypedDict, Unpack

from kvorum.errors import BadRequest, UnknownName, VerifierError
from kvorum.jsontypes import Json
from kvorum.runs.annotations import parameters_of
from kvorum.runs.parameters import Parameter, RemoteLimits, Value, check_size, read_json
from kvorum.wording import check_known, explain, unknown


@dataclass(frozen=True, slots=True)
class Task:
    """A problem: its text ``prompt`` and, where there is one, ``verify``, which scores an answer from 0 to 1.

    It is asked of whatever answers a program wants judged (each leaf of a tree), and once, at the end, of the run's
    answer; it is given None where there is none. ``private``: what one worker alone is told, by its name.
    """

    prompt: str
    verify: Callable[[str | None], float] | None = None
    name: str = ""
    private: Mapping[str, str] = field(default_factory=dict, hash=False)

    def score(self, answer: str | None) -> float | None:
        """What the verifier gives for an answer; None where there is no verifier.

        Raises:
            VerifierError: it failed, or gave something that is no number.
        """
        if self.verify is None:
            return None
        try:
            return float(self.verify(answer))
        except Exception as error:
            raise VerifierError(f"The task's verifier failed on the answer {answer!r}.\n{explain(error)}") from error


Exchange: TypeAlias = Literal["independent", "shared", "chain", "dialogue", "messages", "board", "none"]
"""How the workers of a program hear of each other: "independent" ones answer each for itself; "shared": they read along
while the others write; "chain": each hands on to the next; "dialogue": the first instructs, the second solves, in
turns; "messages": to neighbours, in rounds; "board": values that all see, and votes, in rounds; "none" of these."""


Function: TypeAlias = Callable[..., Awaitable[str | None]]
"""What a program does: called with the run and its parameters, it returns the answer or None."""


@dataclass(frozen=True, slots=True)
class Program:
    """A way for a team to work on a task: ``await function(run, **params)`` returns the answer or None.

    Made by the decorator ``program``. ``summary`` is a line for lists; ``parameters`` are the function's keywords, with
    their kinds and bounds; a run has ``default_workers`` unless it is told otherwise, ``least_workers`` or more and
    at most ``most_workers``.

    What others need to know of a program is declared here, once: nobody else knows it by its name.
    """

    name: str
    summary: str
    function: Function
    parameters: tuple[Parameter, ...] = ()
    default_workers: int = 1
    least_workers: int = 1
    """It cannot work with fewer workers."""
    most_workers: int = 64
    """It has no work for more of them."""
    private: bool = False
    """Whether it tells workers their private parts of a task."""
    joins: bool = False
    """Whether it takes up new workers while it runs."""
    listens: bool = True
    """Whether its workers can be told something, or to leave, while it runs; all take the call for an answer."""
    exchange: Exchange = "none"
    """How workers hear of each other while they work."""
    own_tasks: bool = False
    """Whether it plays only tasks made for it, such as a game's."""
    cache_per_token: int = 1
    """How many tokens of cache a written token may take at worst, such as 2 where finished words are moved."""
    channels: Mapping[str, Mapping[str, Json]] = field(default_factory=dict, hash=False)
    """How workers' words can pass between them, as a study compares it: by name the parameters that make it so. The
    first one is the default; without any, the program stands in no study."""
    real: str = ""
    """The channel that the others are compared with, the controls among them."""
    names: Callable[..., Sequence[str]] | None = None
    """Called as ``names(workers, **params)`` with how many were asked for, or None, and all parameters, where its work
    names its workers: as many names as there are workers at once. None: Alice, Bob and so on."""
    speaker: int | None = None
    """Which worker's words are the answer as they are written, counted from 0: a stream sends them as such."""
    together: Callable[..., None] | None = None
    """Called as ``together(workers, **params)`` with the number of workers and all parameters, the defaults too, before
    a run is accepted. Raises BadRequest where they cannot be together."""
    former: Mapping[str, Json] = field(default_factory=dict, hash=False)
    """Defaults up to version 2 of the trace, of parameters that have others now: runs of then repeat with them."""
    where: str = ""
    """The file or module of a program that is not kvorum's, as ``kvorum.programs.load`` takes it."""

    @property
    def source(self) -> str:
        """The file in which its function stands."""
        return inspect.getfile(inspect.unwrap(self.function))

    @property
    def turns(self) -> bool:
        """Whether workers speak in turns; otherwise each writes on at its own text."""
        return self.exchange in ("dialogue", "messages", "board")

    @property
    def params(self) -> dict[str, Value]:
        """The parameters' defaults, by name."""
        return {parameter.name: parameter.default for parameter in self.parameters}

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name. Raises BadRequest with the near ones."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise BadRequest(unknown("parameter", name, self.params, owner=self.name))

    def check(
        self, params: Mapping[str, Value], *, workers: int | None = None, remote: RemoteLimits | None = None
    ) -> dict[str, Value]:
        """The parameters as ``function`` takes them, those of programs inside this one too.

        ``workers``: how many the run has; without it their number and what depends on it is not looked at. ``remote``:
        they come from the network, so local ones are refused and these limits hold, at any depth.

        Raises:
            UnknownName: no such choice or program.
            BadRequest: no such parameter; of another kind, outside its bounds, beyond the limits, or not offered; they
                cannot be together, or not with so many workers. The error's ``param`` says which, if it is one.
        """
        found = dict(params)
        for name, value in params.items():
            try:
                parameter = self.parameter(name)
                if parameter.params_of is not None:
                    found[name] = self._check_inner(parameter, params, remote)
                else:
                    parameter.check(value, remote)
                    if parameter.kind == "program" and value:
                        find(str(value))
            except (UnknownName, BadRequest) as error:
                at_home = error.param is not None or str(error).startswith(f"{self.name} ")
                named = type(error)(str(error) if at_home else f"{self.name}: {error}")
                named.param = name if error.param is None else f"{name}.{error.param}"
                raise named from None
        if workers is not None:
            self.check_workers(workers)
            if self.together is not None:
                self.together(workers, **self.params | found)
        return found

    def _check_inner(self, holder: Parameter, params: Mapping[str, Value], remote: RemoteLimits | None) -> Value:
        """The parameters of a program inside this one, which ``holder`` holds, by its own declaration."""
        given = params[holder.name]
        if isinstance(given, str):  # as a command line once told it, in traces of before
            with suppress(ValueError):
                given = read_json(given)
        named = params.get(str(holder.params_of)) or self.params.get(str(holder.params_of))
        if given is not None and not isinstance(given, Mapping):
            raise BadRequest(f"{holder.name} must be a mapping, a JSON object.")
        if not given:
            return given
        if not named:
            raise BadRequest(f"{holder.name} needs {holder.params_of}: the program whose parameters these are.")
        program = find(str(named))
        inner = {name: value for name, value in given.items() if name != "workers"}
        workers = given.get("workers", program.default_workers)
        count = len(workers) if isinstance(workers, list | tuple) else workers
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise BadRequest(f"workers={workers!r} must be a whole number of at least 1, or a list of names.")
        if remote is not None:
            remote = replace(remote, inside=remote.inside + 1)
            if remote.inside >= remote.depth:
                raise BadRequest(f"At most {remote.depth} programs may stand inside one another.")
            check_size("workers", workers, remote)
        if program.names is not None and "workers" not in given:
            count = len(program.names(None, **program.params | program.check(inner, remote=remote)))
        checked = program.check(inner, workers=count, remote=remote)
        if remote is not None and count > remote.workers:
            raise BadRequest(f"{count} workers are more than the {remote.workers} that are offered.")
        return {**given, **checked}

    def workers_of(self, workers: int | Sequence[str] | None, params: Mapping[str, Value]) -> int | Sequence[str]:
        """The workers of a run with these parameters, how many or their names, where ``workers`` were asked for."""
        if self.names is None or not (workers is None or isinstance(workers, int)):
            return self.default_workers if workers is None else workers
        return list(self.names(workers, **self.params | self.check(params)))

    def check_workers(self, count: int) -> None:
        """Raises BadRequest for more workers than the program has work for, or fewer than it needs."""
        if not self.least_workers <= count <= self.most_workers:
            some = f"from {self.least_workers} to {self.most_workers}"
            if self.least_workers == self.most_workers:
                some = f"exactly {self.most_workers}"
            raise BadRequest(f"{count} workers are not possible for {self.name}; give {some}.")

    def check_private(self, task: Task, names: Sequence[str]) -> None:
        """Raises BadRequest where a worker's private part of the task would be told to nobody."""
        if task.private and not self.private:
            raise BadRequest(f"{self.name} cannot tell workers private parts of a task; use a program that can.")
        if strangers := [name for name in task.private if name not in names]:
            raise BadRequest(f"The task has a private part for {strangers[0]}; the workers are: {', '.join(names)}.")

    def cache_tokens(self, written: int, params: Mapping[str, Value]) -> int:
        """Tokens of cache that ``written`` tokens may take at worst, in programs inside this one too."""
        most = written * self.cache_per_token
        for parameter in self.parameters:
            if parameter.kind == "program" and (name := params.get(parameter.name)):
                holder = next((one.name for one in self.parameters if one.params_of == parameter.name), "")
                given = params.get(holder)
                most = max(most, find(str(name)).cache_tokens(written, given if isinstance(given, Mapping) else {}))
        return most

    def as_dict(self, *, local: bool = True) -> dict[str, Json]:
        """For JSON: the program with its parameters; ``local``: those too that the network may not give."""
        traits = ("name", "summary", "least_workers", "most_workers", "joins", "listens", "private", "turns")
        shown: dict[str, Json] = {name: getattr(self, name) for name in traits}
        params = [parameter.as_dict() for parameter in self.parameters if local or not parameter.local]
        return shown | {"workers": self.default_workers, "params": params}


REGISTRY: dict[str, Program] = {}
"""All programs by name, which ``kvorum.programs`` puts here; here because programs find others in it, to work inside
them."""


def find(name: str) -> Program:
    """The program of that name; safe to ask for what came over the network.

    Raises:
        UnknownName: there is none; the message has the near ones.
    """
    if not REGISTRY:
        raise UnknownName(f"There is no program {name!r} yet: import kvorum.programs first.")
    check_known("program", name, REGISTRY)
    return REGISTRY[name]


class Traits(TypedDict, total=False):
    """What the decorator ``program`` can be given besides; ``Program`` says what each means."""

    least_workers: int
    most_workers: int
    private: bool
    joins: bool
    listens: bool
    exchange: Exchange
    own_tasks: bool
    cache_per_token: int
    channels: Mapping[str, Mapping[str, Json]]
    real: str
    names: Callable[..., Sequence[str]]
    speaker: int
    together: Callable[..., None]
    former: Mapping[str, Json]


def program(name: str, summary: str, *, workers: int = 1, **traits: Unpack[Traits]) -> Callable[[Function], Program]:
    """Turn ``async def f(run, *, ...)`` into a Program whose parameters are f's keywords, with ``workers`` by default.

    ``traits``: what else there is to know of it, by the names of ``Program``'s fields.
    """

    def wrap(function: Function) -> Program:
        parameters = parameters_of(function, name)
        return Program(name, summary, function, parameters, default_workers=workers, **traits)

    return wrap
