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
      - {program: solo, match: [ticks, tokens], temperature: 0}     # another one than the study's
      - {program: vote, tasks: [bundle]}                            # only on these tasks, by their labels
      - {program: vote, params: {answer: text}, label: texts}       # called vote/texts, where vote comes twice
      - {program: ladder, factors: {memory: [none, recalled], skill: [none, needed]}}   # an arm for each combination
    temperature: 0.6                # the rest may be left out; these are the defaults
    concurrency: 16                 # runs at a time
    prefill_ratio: 8                # decode-equivalents: decoded + latent + prefill / this
    kv_tokens: 65536
    traces: false                   # keep each run's trace, in the folder `traces`, by the key of its cell
    kept: false                     # keep encoded texts on disk, in the folder `kept`, for the other arms to load
    attention: false                # whose words the workers attend to, every 4 ticks (true) or every so many
    claims: []                      # what is said before the runs, and what is to be found (claim.py)

A program of one worker is given everything, private parts too, and stands beside every team size that another arm has
with its budget: at equal "ticks", and at equal "tokens", with team size times as many ticks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated

from kvorum.errors import BadRequest, UnknownName
from kvorum.jsontypes import Json, JsonObject
from kvorum.lab.study.cell import Cell, in_study
from kvorum.lab.study.claim import Claim
from kvorum.lab.study.crossed import crossed, levels_of
from kvorum.lab.study.study_file import checked, contents
from kvorum.programs import find
from kvorum.runs.annotations import Help, NonNegativeFloat, NonNegativeInt, PositiveInt, parameters_of
from kvorum.runs.worker import choose_names
from kvorum.wording import check_known

MATCHES = ("ticks", "tokens")
_BUDGETS = "budgets are a list of whole numbers of ticks"
_ARM_KEYS = ("program", "channels", "workers", "budgets", "match", "params", "temperature", "tasks", "label", "factors")


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
        options = dict(_mapping("A task", asked))
        family, inject = str(options.pop("family", "")), options.pop("inject", False)
        label = str(options.pop("label", f"{family}+told" if inject else family))
        return cls(label, family, options, inject)


@dataclass(frozen=True, slots=True)
class Arm:
    """A program, and over which channels, in teams of which sizes and with which budgets it is run. ``alone``: it is
    one worker, which a study gives everything and puts in the place of a team."""

    program: str
    alone: bool
    channels: Sequence[str]
    teams: Sequence[int]
    budgets: Sequence[int]
    matches: Sequence[str]
    params: JsonObject
    temperature: float | None
    """None: the study's."""
    tasks: Sequence[str]
    """The labels of those that it is run on, if it can be given them."""
    label: str = ""
    """What it is called instead of its channel, of which it then has one; for a program that comes twice."""
    levels: Mapping[str, bool] = field(default_factory=dict)
    """In a factorial design, by factor whether it is at its second level."""

    @classmethod
    def of(cls, asked: Json, budgets: Sequence[int], tasks: Sequence[str]) -> Arm:
        """From an entry of a study's ``arms``; ``budgets``: the study's, ``tasks``: the labels of its tasks. Raises
        BadRequest, UnknownName."""
        asked = _mapping("An arm", asked)
        _check_keys("An arm", asked, _ARM_KEYS)
        program = in_study(str(asked.get("program", "")))
        known, alone = list(program.channels), program.most_workers == 1
        channels = [str(name) for name in _list(asked, "channels", known[:1])]
        for channel in channels:
            check_known("channel", channel, known, owner=f"{program.name} in a study")
        matches = [str(name) for name in _list(asked, "match", ["ticks"])]
        for match in matches:
            if match not in MATCHES or (match == "tokens" and not alone):
                raise UnknownName(
                    f"{program.name} cannot be matched by {match!r}; one worker can, by {' and '.join(MATCHES)}."
                )
        params = _mapping("An arm's params", asked.get("params", {}))
        program.check(params)
        teams = _counts("An arm's workers are a list of whole numbers", _list(asked, "workers", [4]))
        for size in teams:
            choose_names(size, 64)
        own = _counts(_BUDGETS, asked["budgets"]) if "budgets" in asked else budgets
        own_tasks = [str(label) for label in _list(asked, "tasks", tasks)]
        for label in own_tasks:
            check_known("task", label, tasks, owner="the study")
        temperature = _temperature(asked.get("temperature"))
        label = str(asked.get("label", ""))
        if label and len(channels) * len(matches) > 1:
            raise BadRequest(f"The label {label!r} names one arm; give it one channel and one match.")
        levels = levels_of(asked)
        return cls(program.name, alone, channels, teams, own, matches, params, temperature, own_tasks, label, levels)


@dataclass(frozen=True)
class Study:
    """What a study file asks for, checked."""

    name: str = ""
    tasks: Sequence[StudyTask] = ()
    arms: Sequence[Arm] = ()
    models: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    items: PositiveInt = 8
    first_item: NonNegativeInt = 0
    temperature: NonNegativeFloat = 0.6
    concurrency: PositiveInt = 16
    prefill_ratio: Annotated[float, Help(low=1)] = 8.0
    kv_tokens: PositiveInt = 65536
    traces: bool = False
    kept: bool = False
    attention: bool | int = False
    claims: Sequence[Claim] = ()

    @classmethod
    def read(cls, path: str | Path) -> Study:
        """From a file: YAML, or Python whose ``STUDY`` is the same dictionary or a ``Study``.

        A Python file is the user's own code and is run as such, with all rights of whoever gives the command. It is for
        grids that are easier made than written down.

        Raises:
            BadRequest, UnknownName: the file cannot be read, is not YAML, fails as Python, or asks for what is not
                there.
        """
        path = Path(path)
        value = contents(path)
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise BadRequest(f"The study {path} must be a mapping with the keys {', '.join(sorted(_KEYS))}.")
        return cls.of({"name": path.stem, **value})

    @classmethod
    def of(cls, asked: JsonObject) -> Study:
        """From a dictionary of the same form. Raises BadRequest, UnknownName: what is wrong."""
        _check_keys("A study", asked, sorted(_KEYS))
        if missing := {"name", "models", "budgets", "tasks", "arms"} - set(asked):
            raise BadRequest(f"The study does not say its {min(missing)}.")
        models = [str(name) for name in _list(asked, "models")]
        own = {"seeds": _list(asked, "seeds", [0]), "name": str(asked["name"]), "models": models}
        settings = checked(_SETTINGS, {**asked, **own})
        attention = settings["attention"]
        if not isinstance(attention, int) or attention < 0:
            raise BadRequest(f"attention must be true, false or a number of ticks, not {attention!r}.")
        budgets = _counts(_BUDGETS, _list(asked, "budgets"))
        settings["tasks"] = [StudyTask.of(task) for task in _list(asked, "tasks")]
        labels = [task.label for task in settings["tasks"]]
        asked_arms = [one for arm in _list(asked, "arms") for one in crossed(_mapping("An arm", arm))]
        settings["arms"] = [Arm.of(arm, budgets, labels) for arm in asked_arms]
        settings["claims"] = [Claim.of(claim) for claim in _list(asked, "claims")] if asked.get("claims") else []
        study = cls(**settings)
        if not study.cells:
            raise BadRequest("The study has no cells: none of its arms can be given any of its tasks.")
        for claim in study.claims:
            claim.check(study.cells)
        return study

    @cached_property
    def cells(self) -> list[Cell]:
        """All runs, in the order in which they begin. An arm that cannot be given a task leaves it out."""
        return list({cell.key: cell for cell in self._expand()}.values())

    def sizes(self, arm: Arm, budget: int, task: str) -> Sequence[int]:
        """The team sizes of an arm with this budget on this task: its own, or those of teams if it is one worker."""
        if not arm.alone:
            return arm.teams
        teams = [team for team in self.arms if not team.alone and task in team.tasks]
        return sorted({size for team in teams if budget in team.budgets for size in team.teams}) if teams else [1]

    def _expand(self) -> Iterator[Cell]:
        budgets = dict.fromkeys(budget for arm in self.arms for budget in arm.budgets)
        items = range(self.first_item, self.first_item + self.items)
        fitting: dict[tuple[str, str, str, int], bool] = {}  # by task, arm, channel and team size
        for model, seed, item, budget, arm, task in product(
            self.models, self.seeds, items, budgets, self.arms, self.tasks
        ):
            sizes = self.sizes(arm, budget, task.label) if budget in arm.budgets and task.label in arm.tasks else ()
            for channel, match, team in product(arm.channels, arm.matches, sizes):
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
                    temperature=self.temperature if arm.temperature is None else arm.temperature,
                    params=arm.params,
                    inject=task.inject,
                    label=arm.label,
                )
                kind = (repr(task), repr(arm), channel, team)
                if kind not in fitting:
                    example = cell.make()
                    fitting[kind] = cell.fits(example)
                    if fitting[kind]:
                        cell.injected_fact(example)  # says now what is wrong with it
                        find(cell.program).check(cell.parameters(example), workers=cell.workers)
                if fitting[kind]:
                    yield cell


_SETTINGS = parameters_of(Study.__init__, "a study")
_KEYS = {*Study.__dataclass_fields__, "budgets"}


def _check_keys(owner: str, asked: JsonObject, known: Sequence[str]) -> None:
    for key in asked:
        check_known("key", key, known, owner=owner)


def _mapping(what: str, value: Json) -> JsonObject:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{what} must be a mapping, not {value!r}.")
    return value


def _list(asked: JsonObject, key: str, default: Sequence[Json] = ()) -> Sequence[Json]:
    value = asked.get(key, default)
    if not isinstance(value, list | tuple) or not value:
        raise BadRequest(f"{key} must be a list of at least one.")
    return value


def _temperature(value: Json) -> float | None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf
    ):
        raise BadRequest(f"An arm's temperature is a number of at least 0, not {value!r}.")
    return value


def _counts(wanted: str, value: Json) -> list[int]:
    if not isinstance(value, list | tuple) or not all(type(count) is int and count >= 1 for count in value):
        raise BadRequest(f"{wanted}, at least 1, not {value!r}.")
    return [count for count in value if isinstance(count, int)]
