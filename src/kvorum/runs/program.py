"""Tasks and programs: what a run is given."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

from kvorum.errors import BadRequest, UnknownName
from kvorum.jsontypes import Json
from kvorum.runs.annotations import parameters_of
from kvorum.runs.parameters import Parameter, RemoteLimits, Value, check_size, read_json
from kvorum.wording import unknown


@dataclass(frozen=True, slots=True)
class Task:
    """A problem: its text ``prompt`` and, where there is one, ``verify``, which scores an answer from 0 to 1.

    ``private``: what one worker alone is told, by its name.
    """

    prompt: str
    verify: Callable[[str | None], float] | None = None
    name: str = ""
    private: Mapping[str, str] = field(default_factory=dict, hash=False)


Exchange: TypeAlias = Literal["independent", "shared", "chain", "dialogue", "messages", "board", "none"]
"""How the workers of a program hear of each other: "independent" ones answer each for itself; "shared": they read along
while the others write; "chain": each hands on to the next; "dialogue": the first instructs, the second solves, in
turns; "messages": to neighbours, in rounds; "board": values that all see, and votes, in rounds; "none" of these."""


class FindsPrograms(Protocol):
    """Finds a program by its name. Raises UnknownName."""

    def __call__(self, name: str, /) -> Program: ...


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
    function: Callable[..., Awaitable[str | None]]
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

    def check(self, params: Mapping[str, Value], *, remote: RemoteLimits | None = None) -> dict[str, Value]:
        """The parameters as ``function`` takes them, those of programs inside this one too.

        ``remote``: they come from the network, so local ones are refused and these limits hold, at any depth.

        Raises:
            UnknownName: no such choice or program.
            BadRequest: no such parameter; of another kind, outside its bounds, beyond the limits, or not offered. The
                error's ``param`` says which.
        """
        return self._check(params, remote, 1)

    def _check(self, params: Mapping[str, Value], remote: RemoteLimits | None, depth: int) -> dict[str, Value]:
        found = dict(params)
        for name, value in params.items():
            try:
                parameter = self.parameter(name)
                if parameter.params_of is not None:
                    found[name] = self._check_inner(parameter, params, remote, depth)
                else:
                    parameter.check(value, remote)
                    if parameter.kind == "program" and value:
                        self.inner(str(value))
            except (UnknownName, BadRequest) as error:
                at_home = error.param is not None or str(error).startswith(f"{self.name} ")
                named = type(error)(str(error) if at_home else f"{self.name}: {error}")
                named.param = name if error.param is None else f"{name}.{error.param}"
                raise named from None
        return found

    def _check_inner(
        self, parameter: Parameter, params: Mapping[str, Value], remote: RemoteLimits | None, depth: int
    ) -> Value:
        """The parameters of a program inside this one, by its own declaration."""
        given = params[parameter.name]
        if isinstance(given, str):  # as a command line once told it, in traces of before
            with suppress(ValueError):
                given = read_json(given)
        named = params.get(str(parameter.params_of)) or self.params.get(str(parameter.params_of))
        if given is not None and not isinstance(given, Mapping):
            raise BadRequest(f"{parameter.name} must be a mapping, a JSON object.")
        if not given:
            return given
        if not named:
            raise BadRequest(f"{parameter.name} needs {parameter.params_of}: the program whose parameters these are.")
        if remote is not None and depth >= remote.depth:
            raise BadRequest(f"At most {remote.depth} programs may stand inside one another.")
        program = self.inner(str(named))
        inner = {name: value for name, value in given.items() if name != "workers"}
        if "workers" in given:
            _inner_workers(program, given["workers"], remote)
        return {**given, **program._check(inner, remote, depth + 1)}

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

    def inner(self, name: str) -> Program:
        """The program that is to work inside this one. Raises UnknownName."""
        return _finder[-1](name)

    def cache_tokens(self, written: int, params: Mapping[str, Value]) -> int:
        """Tokens of cache that ``written`` tokens may take at worst, in programs inside this one too."""
        return written * self._per_token(params)

    def _per_token(self, params: Mapping[str, Value]) -> int:
        most = self.cache_per_token
        for parameter in self.parameters:
            if parameter.kind == "program" and (name := params.get(parameter.name)):
                holder = next((one.name for one in self.parameters if one.params_of == parameter.name), "")
                given = params.get(holder)
                most = max(most, self.inner(str(name))._per_token(given if isinstance(given, Mapping) else {}))
        return most

    def as_dict(self, *, local: bool = True) -> dict[str, Json]:
        """For JSON: the program with its parameters; ``local``: those too that the network may not give."""
        return {
            "name": self.name,
            "summary": self.summary,
            "workers": self.default_workers,
            "least_workers": self.least_workers,
            "most_workers": self.most_workers,
            "joins": self.joins,
            "listens": self.listens,
            "private": self.private,
            "turns": self.turns,
            "params": [parameter.as_dict() for parameter in self.parameters if local or not parameter.local],
        }


def _inner_workers(program: Program, workers: Value, remote: RemoteLimits | None) -> None:
    """Raises BadRequest where a program inside another cannot have so many workers, or not over the network."""
    many = len(workers) if isinstance(workers, list | tuple) else workers
    if isinstance(many, bool) or not isinstance(many, int) or many < 1:
        raise BadRequest(f"workers={workers!r} must be a whole number of at least 1, or a list of names.")
    program.check_workers(many)
    if remote is not None:
        check_size("workers", workers, remote)
        if many > remote.workers:
            raise BadRequest(f"{many} workers are more than the {remote.workers} that are offered.")


def _unknown(name: str, /) -> Program:
    raise UnknownName(f"There is no program {name!r} that could work inside another: import kvorum.programs first.")


_finder: list[FindsPrograms] = [_unknown]


def programs_are_found_by(find: FindsPrograms) -> None:
    """Say how programs that others name are found. The list of programs does, so that no program imports it."""
    _finder[:] = [find]


def program(
    name: str,
    summary: str,
    *,
    workers: int = 1,
    least_workers: int = 1,
    most_workers: int = 64,
    private: bool = False,
    joins: bool = False,
    listens: bool = True,
    exchange: Exchange = "none",
    own_tasks: bool = False,
    cache_per_token: int = 1,
    channels: Mapping[str, Mapping[str, Json]] = MappingProxyType({}),
    real: str = "",
) -> Callable[[Callable[..., Awaitable[str | None]]], Program]:
    """Turn ``async def f(run, *, ...)`` into a Program whose parameters are f's keywords. The rest: see ``Program``."""

    def wrap(function: Callable[..., Awaitable[str | None]]) -> Program:
        return Program(
            name,
            summary,
            function,
            parameters_of(function, name),
            default_workers=workers,
            least_workers=least_workers,
            most_workers=most_workers,
            private=private,
            joins=joins,
            listens=listens,
            exchange=exchange,
            own_tasks=own_tasks,
            cache_per_token=cache_per_token,
            channels=channels,
            real=real,
        )

    return wrap
