"""A study: which cells there are. One YAML file, a Python file whose ``STUDY`` is the same, or a dictionary.

    name: quick                     # what its results are called
    models: [smollm2-135m]
    seeds: [0]                      # of sampling
    items: 8                        # problems of each task, made from the seeds first_item, first_item + 1, ...
    first_item: 0                   # another one: problems that a first study has not seen
    budgets: [96]                   # ticks in which workers write, set-up not counted
    tasks:
      - {family: bundle, parts: 4}  # a family and its options; `label` names it where a family comes twice;
                                  # `inject: true`: one worker is told a fact while they work (lab/injection.py)
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

One worker (``solo``) is given everything, private parts too, and stands beside every team size that another arm has
with its budget: at equal "ticks", and at equal "tokens", with team size times as many ticks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kvorum.errors import BadRequest, UnknownName
from kvorum.lab.measure.injected_fact import InjectedFact
from kvorum.lab.study import arms
from kvorum.lab.study import file as study_file
from kvorum.programs import find
from kvorum.runs.worker import choose_names
from kvorum.tasks import families
from kvorum.tasks.item import Item
from kvorum.wording import unknown

MATCHES = ("ticks", "tokens")
_KEYS = {
    "name", "models", "seeds", "items", "first_item", "budgets", "tasks", "arms", "temperature", "concurrency",
    "prefill_ratio", "kv_tokens", "traces", "attention",
}  # fmt: skip


_ARM_KEYS = ("program", "channels", "workers", "budgets", "match", "params")


@dataclass(frozen=True, slots=True)
class Cell:
    """One run. ``team``: the size of the team it belongs to or is compared with; ``ticks``: what it may spend."""

    model: str
    task: str
    family: str
    options: Mapping[str, Any]
    item: int
    program: str
    channel: str
    match: str
    team: int
    budget: int
    seed: int
    temperature: float
    params: Mapping[str, Any]
    inject: Mapping[str, Any] | bool = False

    @property
    def workers(self) -> int:
        """How many work."""
        return 1 if self.program == "solo" else self.team

    @property
    def ticks(self) -> int:
        """Ticks in which they may write."""
        return self.budget * (self.team if self.match == "tokens" else 1)

    @property
    def arm(self) -> str:
        """The arm's name: program, then the channel or what it is equal in."""
        return f"{self.program}@{self.match}" if self.program == "solo" else f"{self.program}/{self.channel}"

    @property
    def key(self) -> str:
        """Of everything that determines the run; options that are not used have no part in it."""
        told = asdict(self)
        for name in ("inject",):
            if not told[name]:
                del told[name]
        text = json.dumps(told, sort_keys=True, default=dict)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def injection_of(self, item: Item) -> InjectedFact | None:
        """What one worker is told while they work; one that works alone is told it in another one's stead."""
        if not self.inject:
            return None
        names = choose_names(self.team, 64)
        told = InjectedFact.of(self.inject, item, names)
        return told if self.workers > 1 else replace(told, worker=names[0])

    def make(self, item: int | None = None) -> Item:
        """The cell's item, or another one of its task."""
        seed = self.item if item is None else item
        return families.make(self.family, seed, self.team, **self.options)


@dataclass(frozen=True)
class Study:
    """What the file says."""

    name: str
    tasks: list[dict[str, Any]]
    arms: list[dict[str, Any]]
    models: list[str]
    budgets: list[int]
    items: int = 8
    first_item: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])
    temperature: float = 0.6
    concurrency: int = 16
    prefill_ratio: float = 8.0
    kv_tokens: int = 65536
    traces: bool = False
    attention: bool | int = False

    @classmethod
    def read(cls, path: str | Path) -> Study:
        """From a file, YAML or Python (which is run: ``study_file``). Raises BadRequest, UnknownName: what is wrong."""
        told = study_file.told(path)
        if isinstance(told, cls):
            return told
        if not isinstance(told, dict):
            raise BadRequest(f"The study {path} must be a mapping with the keys {', '.join(sorted(_KEYS))}.")
        return cls.of({"name": Path(path).stem} | told)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Study:
        """From a dictionary of the same form."""
        for key in told:
            if key not in _KEYS:
                raise UnknownName(unknown("key", key, sorted(_KEYS), owner="A study"))
        missing = {"name", "models", "budgets", "tasks", "arms"} - set(told)
        if missing:
            raise BadRequest(f"The study does not say its {min(missing)}.")
        for key in ("models", "budgets", "tasks", "arms", "seeds"):
            if key in told and (not isinstance(told[key], list) or not told[key]):
                raise BadRequest(f"{key} must be a list of at least one.")
        for key in ("items", "concurrency", "kv_tokens", "prefill_ratio"):
            if key in told and (not isinstance(told[key], int | float) or told[key] < 1):
                raise BadRequest(f"{key} must be a number of at least 1, not {told[key]!r}.")
        if type(first := told.get("first_item", 0)) is not int or first < 0:
            raise BadRequest(f"first_item must be a whole number from 0 on, not {first!r}.")
        if not isinstance(told.get("traces", False), bool):
            raise BadRequest(f"traces must be true or false, not {told['traces']!r}.")
        if not isinstance(asked := told.get("attention", False), int) or asked < 0:
            raise BadRequest(f"attention must be true, false or a number of ticks, not {asked!r}.")
        _check_budgets(told["budgets"])
        study = cls(**told)
        if not study.cells:
            raise BadRequest("The study has no cells: none of its arms can be given any of its tasks.")
        return study

    @cached_property
    def cells(self) -> list[Cell]:
        """All runs, in the order in which they begin. An arm that cannot be given a task leaves it out."""
        return list({cell.key: cell for cell in self._expand()}.values())

    def sizes(self, budget: int) -> list[int]:
        """The team sizes that some arm has with this budget."""
        teams = [arm for arm in self.arms if arm.get("program") != "solo"]
        found = {size for arm in teams if budget in self.budgets_of(arm) for size in _workers(arm)}
        return sorted(found) if teams else [1]

    def budgets_of(self, arm: Mapping[str, Any]) -> list[int]:
        """An arm's own budgets, or the study's."""
        return _check_budgets(arm.get("budgets", self.budgets))

    def _expand(self) -> Iterator[Cell]:
        budgets = list(dict.fromkeys(budget for arm in self.arms for budget in self.budgets_of(arm)))
        for model in self.models:
            for seed in self.seeds:
                for item in range(self.first_item, self.first_item + int(self.items)):
                    for budget in budgets:
                        for task in self.tasks:
                            for arm in self.arms:
                                if budget in self.budgets_of(arm):
                                    yield from self._arm(model, seed, item, budget, task, arm)

    def _arm(
        self, model: str, seed: int, item: int, budget: int, task: Mapping[str, Any], arm: Mapping[str, Any]
    ) -> Iterator[Cell]:
        family, program = str(task.get("family", "")), str(arm.get("program", ""))
        options = {key: value for key, value in task.items() if key not in ("family", "label", "inject")}
        inject = task.get("inject", False)
        label = str(task.get("label", f"{family}+told" if inject else family))
        known = arms.channels(program)
        for key in arm:
            if key not in _ARM_KEYS:
                raise UnknownName(unknown("key", key, _ARM_KEYS, owner="An arm"))
        params = dict(arm.get("params", {}))
        for name in params:
            if name not in find(program).params:
                raise UnknownName(unknown("parameter", name, find(program).params, owner=program))
        matches = arm.get("match", ["ticks"])
        for channel in arm.get("channels", known[:1]):
            if channel not in known:
                raise UnknownName(unknown("channel", channel, known, owner=f"In a study, {program}"))
            for match in matches:
                if match not in MATCHES or (match == "tokens" and program != "solo"):
                    raise UnknownName(f"{program} cannot be matched by {match!r}; solo can, by ticks and tokens.")
                for team in self.sizes(budget) if program == "solo" else _workers(arm):
                    cell = Cell(
                        model, label, family, options, item, program, channel, match, team, budget, seed,
                        self.temperature, params, inject,
                    )  # fmt: skip
                    if arms.fits(program, made := families.make(family, item, team, **options)):
                        cell.injection_of(made)  # says now what is wrong with it
                        yield cell


def _check_budgets(budgets: Any) -> list[int]:
    if not isinstance(budgets, list) or not all(type(budget) is int and budget >= 1 for budget in budgets):
        raise BadRequest("budgets are a list of whole numbers of ticks, at least 1.")
    return budgets


def _workers(arm: Mapping[str, Any]) -> list[int]:
    sizes = arm.get("workers", [4])
    for size in sizes:
        choose_names(size, 64)
    return list(sizes)
