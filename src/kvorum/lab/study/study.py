"""A study: which cells there are. One YAML file, a Python file whose ``STUDY`` is the same, or a dictionary.

    name: quick                     # what its results are called
    models: [smollm2-135m]
    seeds: [0]                      # of sampling
    items: 8                        # problems of each task, made from the seeds first_item, first_item + 1, ...
    first_item: 0                   # another one: problems that a first study has not seen
    budgets: [96]                   # ticks in which workers write, set-up not counted
    tasks:
      - {family: bundle, parts: 4}  # a family and its options; `label` names it where a family comes twice;
                                    # `inject: true`: one worker is told a fact while they work (injected_fact.py)
    arms:
      - {program: hogwild, channels: [cache, none], workers: [4], params: {ends: line}}
      - {program: vote, workers: [2, 4], budgets: [48]}     # other budgets than the study's
      - {program: solo, match: [ticks, tokens]}
    temperature: 0.6                # the rest may be left out; these are the defaults
    concurrency: 16                 # runs at a time
    prefill_ratio: 8                # decode-equivalents: decoded + latent + prefill / this
    kv_tokens: 65536
    traces: false                   # keep each run's trace, in the folder `traces`, by the key of its cell
    attention: false                # whose words the workers attend to, every 4 ticks (true) or every so many

A program of one worker is given everything, private parts too, and stands beside every team size that another arm has
with its budget: at equal "ticks", and at equal "tokens", with team size times as many ticks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

from kvorum.errors import BadRequest, UnknownName
from kvorum.jsontypes import Json, JsonObject
from kvorum.lab.study.arms import fits, in_study, is_alone
from kvorum.lab.study.cell import Cell
from kvorum.lab.study.file import read_value
from kvorum.runs.worker import choose_names
from kvorum.wording import unknown

MATCHES = ("ticks", "tokens")
_ARM_KEYS = ("program", "channels", "workers", "budgets", "match", "params")


@dataclass(frozen=True, slots=True)
class StudyTask:
    """A family of problems with its options. ``inject``: what one worker is told meanwhile (see ``InjectedFact``)."""

    label: str
    family: str
    options: JsonObject
    inject: Json = False

    @classmethod
    def of(cls, asked: Json) -> StudyTask:
        """From an entry of a study's ``tasks``."""
        asked = _mapping("A task", asked)
        family, inject = str(asked.get("family", "")), asked.get("inject", False)
        label = str(asked.get("label", f"{family}+told" if inject else family))
        options = {key: value for key, value in asked.items() if key not in ("family", "label", "inject")}
        return cls(label, family, options, inject)


@dataclass(frozen=True, slots=True)
class Arm:
    """A program, and over which channels, in teams of which sizes and with which budgets it is run."""

    program: str
    channels: Sequence[str]
    teams: Sequence[int]
    budgets: Sequence[int]
    matches: Sequence[str]
    params: JsonObject

    @classmethod
    def of(cls, asked: Json, budgets: Sequence[int]) -> Arm:
        """From an entry of a study's ``arms``; ``budgets``: the study's. Raises BadRequest, UnknownName."""
        asked = _mapping("An arm", asked)
        _check_keys("An arm", asked, _ARM_KEYS)
        program = in_study(str(asked.get("program", "")))
        known, alone = list(program.channels), is_alone(program.name)
        channels = [str(name) for name in _list(asked, "channels", known[:1])]
        for channel in channels:
            if channel not in known:
                raise UnknownName(unknown("channel", channel, known, owner=f"{program.name} in a study"))
        matches = [str(name) for name in _list(asked, "match", ["ticks"])]
        for match in matches:
            if match not in MATCHES or (match == "tokens" and not alone):
                raise UnknownName(
                    f"{program.name} cannot be matched by {match!r}; one worker can, by {' and '.join(MATCHES)}."
                )
        params = _mapping("An arm's params", asked.get("params", {}))
        program.check(params)
        teams = [_whole("An arm's workers", size) for size in _list(asked, "workers", [4])]
        for size in teams:
            choose_names(size, 64)
        own = _budgets(asked["budgets"]) if "budgets" in asked else budgets
        return cls(program.name, channels, teams, own, matches, params)


@dataclass(frozen=True)
class Study:
    """What a study file asks for, checked; its defaults are those of the file."""

    name: str
    tasks: Sequence[StudyTask]
    arms: Sequence[Arm]
    models: Sequence[str]
    seeds: Sequence[int] = (0,)
    items: int = 8
    first_item: int = 0
    temperature: float = 0.6
    concurrency: int = 16
    prefill_ratio: float = 8.0
    kv_tokens: int = 65536
    traces: bool = False
    attention: bool | int = False

    @classmethod
    def read(cls, path: str | Path) -> Study:
        """From a file, YAML or Python (which is run: ``file.py``). Raises BadRequest, UnknownName: what is wrong."""
        value = read_value(path)
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise BadRequest(f"The study {path} must be a mapping with the keys {', '.join(sorted(_KEYS))}.")
        return cls.of({"name": Path(path).stem, **value})

    @classmethod
    def of(cls, asked: JsonObject) -> Study:
        """From a dictionary of the same form. Raises BadRequest, UnknownName: what is wrong."""
        _check_keys("A study", asked, sorted(_KEYS))
        if missing := {"name", "models", "budgets", "tasks", "arms"} - set(asked):
            raise BadRequest(f"The study does not say its {min(missing)}.")
        traces, attention = asked.get("traces", cls.traces), asked.get("attention", cls.attention)
        if not isinstance(traces, bool):
            raise BadRequest(f"traces must be true or false, not {traces!r}.")
        if not isinstance(attention, int) or attention < 0:
            raise BadRequest(f"attention must be true, false or a number of ticks, not {attention!r}.")
        budgets = _budgets(_list(asked, "budgets"))
        study = cls(
            name=str(asked["name"]),
            tasks=[StudyTask.of(task) for task in _list(asked, "tasks")],
            arms=[Arm.of(arm, budgets) for arm in _list(asked, "arms")],
            models=[str(name) for name in _list(asked, "models")],
            seeds=[_whole("seeds", seed, low=None) for seed in _list(asked, "seeds", [0])],
            items=_whole("items", asked.get("items", cls.items)),
            first_item=_whole("first_item", asked.get("first_item", cls.first_item), low=0),
            temperature=_number("temperature", asked.get("temperature", cls.temperature), low=0),
            concurrency=_whole("concurrency", asked.get("concurrency", cls.concurrency)),
            prefill_ratio=_number("prefill_ratio", asked.get("prefill_ratio", cls.prefill_ratio)),
            kv_tokens=_whole("kv_tokens", asked.get("kv_tokens", cls.kv_tokens)),
            traces=traces,
            attention=attention,
        )
        if not study.cells:
            raise BadRequest("The study has no cells: none of its arms can be given any of its tasks.")
        return study

    @cached_property
    def cells(self) -> list[Cell]:
        """All runs, in the order in which they begin. An arm that cannot be given a task leaves it out."""
        return list({cell.key: cell for cell in self._expand()}.values())

    def sizes(self, budget: int) -> list[int]:
        """The team sizes that some arm has with this budget."""
        teams = [arm for arm in self.arms if not is_alone(arm.program)]
        return sorted({size for arm in teams if budget in arm.budgets for size in arm.teams}) if teams else [1]

    def _expand(self) -> Iterator[Cell]:
        budgets = dict.fromkeys(budget for arm in self.arms for budget in arm.budgets)
        items = range(self.first_item, self.first_item + self.items)
        fitting: dict[tuple[str, str, int], bool] = {}  # by task, program and team size
        for model, seed, item, budget, task, arm in product(
            self.models, self.seeds, items, budgets, self.tasks, self.arms
        ):
            teams = self.sizes(budget) if is_alone(arm.program) else arm.teams
            for channel, match, team in product(arm.channels, arm.matches, teams):
                if budget not in arm.budgets:
                    continue
                cell = Cell(
                    model=model,
                    task=task.label,
                    family=task.family,
                    options=task.options,
                    item=item,
                    program=arm.program,
                    channel=channel,
                    match=match,
                    team=team,
                    budget=budget,
                    seed=seed,
                    temperature=self.temperature,
                    params=arm.params,
                    inject=task.inject,
                )
                kind = (repr(task), arm.program, team)
                if kind not in fitting:
                    example = cell.make()
                    fitting[kind] = fits(in_study(arm.program), example)
                    if fitting[kind]:
                        cell.injected_fact(example)  # says now what is wrong with it
                if fitting[kind]:
                    yield cell


_KEYS = {*Study.__dataclass_fields__, "budgets"}


def _check_keys(owner: str, asked: JsonObject, known: Sequence[str]) -> None:
    for key in asked:
        if key not in known:
            raise UnknownName(unknown("key", key, known, owner=owner))


def _mapping(what: str, value: Json) -> JsonObject:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{what} must be a mapping, not {value!r}.")
    return value


def _list(asked: JsonObject, key: str, default: Sequence[Json] = ()) -> Sequence[Json]:
    value = asked.get(key, default)
    if not isinstance(value, list | tuple) or not value:
        raise BadRequest(f"{key} must be a list of at least one.")
    return value


def _number(what: str, value: Json, low: float = 1) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < low:
        raise BadRequest(f"{what} must be a number of at least {low:g}, not {value!r}.")
    return value


def _whole(what: str, value: Json, low: int | None = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (low is not None and value < low):
        bound = "" if low is None else f" of at least {low}"
        raise BadRequest(f"{what} must be a whole number{bound}, not {value!r}.")
    return value


def _budgets(value: Json) -> Sequence[int]:
    if not isinstance(value, list | tuple) or not all(type(budget) is int and budget >= 1 for budget in value):
        raise BadRequest("budgets are a list of whole numbers of ticks, at least 1.")
    return [budget for budget in value if isinstance(budget, int)]
