"""Making probabilities mean what they say: a temperature fitted on labelled cases, and how far off they were.

Divided by a temperature above 1, log-probabilities move towards each other: a model that is too sure is made less so.
The order of the answers stays. What it gains is told on cases that had no part in the fit (cross-validation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import get_args

from kvorum.errors import BadRequest
from kvorum.harness.decisions.answers import Decision, log, softmax
from kvorum.harness.decisions.decide import Asking, Way
from kvorum.harness.decisions.prompts import OrderBy
from kvorum.harness.decisions.questions import Kind
from kvorum.jsontypes import Json, JsonObject

FOLDS = 5
LEAST = 20
"""Cases of a kind of question below which its temperature is left at 1."""
BINS = 10
_RANGE = (math.log(0.05), math.log(20.0))


@dataclass(frozen=True, slots=True)
class Case:
    """A decision and the place of the right one among its answers. ``group``: cases of one state have the same."""

    decision: Decision
    right: int
    group: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperatures by kind of question, for questions asked as ``asking`` says, of the model ``model``.

    ``cases``: how many it was fitted on. ``before``, ``after``: accuracy, expected calibration error ``ece`` and mean
    negative log-likelihood ``nll`` of cases, uncorrected, and with temperatures fitted on other cases.
    """

    model: str
    temperatures: Mapping[Kind, float]
    orders: int
    order_by: OrderBy
    prior: bool
    cases: int = 0
    before: Mapping[str, float] = field(default_factory=dict, hash=False)
    after: Mapping[str, float] = field(default_factory=dict, hash=False)
    format: str = "kvorum calibration 1"

    @property
    def way(self) -> Way:
        """How questions are asked for its temperatures to hold: parameters of the program `decide`."""
        return {"orders": self.orders, "order_by": self.order_by, "prior": self.prior}

    def as_json(self) -> JsonObject:
        """For a file; ``read_calibration`` takes it back."""
        return asdict(self)


def read_calibration(given: Json) -> Calibration:
    """A calibration from JSON. Raises BadRequest for anything else."""
    if not isinstance(given, Mapping) or given.get("format") != "kvorum calibration 1":
        raise BadRequest("This is no calibration of `kvorum decide --calibrate`; give the file that it wrote.")
    try:
        found = Calibration(**given)  # type: ignore[arg-type]
        fine = all(0 < float(value) < math.inf for value in found.temperatures.values())
    except (TypeError, ValueError, AttributeError):
        fine = False
    if not fine or not set(found.temperatures) <= set(get_args(Kind)):
        raise BadRequest("The calibration is damaged: it lacks something, or a temperature is no positive number.")
    return found


def fit(cases: Sequence[Case], asking: Asking, model: str) -> Calibration:
    """Temperatures of all cases, and what they gain on cases left out of the fit: states in FOLDS parts.

    Raises:
        BadRequest: there are too few cases to say anything.
    """
    if len(cases) < LEAST:
        raise BadRequest(f"A calibration needs at least {LEAST} labelled answers, and these are {len(cases)}.")
    groups = {group: at for at, group in enumerate(dict.fromkeys(case.group for case in cases))}
    folds = min(FOLDS, len(groups))
    plain = [case.decision.probabilities for case in cases]
    held = list(plain)
    for fold in range(folds if folds > 1 else 0):
        temperatures = _fit_kinds([case for case in cases if groups[case.group] % folds != fold])
        for at, case in enumerate(cases):
            if groups[case.group] % folds == fold:
                held[at] = tempered(plain[at], temperatures.get(case.decision.question.kind, 1.0))
    right = [case.right for case in cases]
    return Calibration(
        model=model,
        temperatures=_fit_kinds(cases),
        orders=asking.orders,
        order_by=asking.order_by,
        prior=asking.prior,
        cases=len(cases),
        before=measures(plain, right),
        after=measures(held, right),
    )


def _fit_kinds(cases: Sequence[Case]) -> dict[Kind, float]:
    found: dict[Kind, float] = {}
    for kind in get_args(Kind):
        ours = [case for case in cases if case.decision.question.kind == kind]
        if len(ours) >= LEAST:
            found[kind] = best_temperature(
                [case.decision.probabilities for case in ours], [case.right for case in ours]
            )
    return found


def best_temperature(shares: Sequence[Sequence[float]], right: Sequence[int]) -> float:
    """The temperature from 0.05 to 20 under which the right answers are likeliest, to four figures."""

    def loss(logarithm: float) -> float:
        return measures([tempered(line, math.exp(logarithm)) for line in shares], right)["nll"]

    return float(f"{math.exp(_minimum(loss, *_RANGE)):.4g}")


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest, by golden sections."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-5:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def tempered(shares: Sequence[float], temperature: float) -> tuple[float, ...]:
    """The distribution with its log-probabilities divided by ``temperature``."""
    return tuple(shares) if temperature == 1.0 else softmax([log(share) / temperature for share in shares])


def measures(shares: Sequence[Sequence[float]], right: Sequence[int]) -> dict[str, float]:
    """``accuracy``, ``ece`` and ``nll`` of distributions whose right answers are at the places ``right``.

    ``ece``: over BINS equal parts of the likeliest answer's probability, the mean distance between that and how often
    it is right, weighted by cases.
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for line, place in zip(shares, right, strict=True):
        top = max(line)
        bins.setdefault(min(int(top * BINS), BINS - 1), []).append((top, line.index(top) == place))
    gaps = [abs(math.fsum(top - hit for top, hit in part)) for part in bins.values()]
    hits = sum(hit for part in bins.values() for _, hit in part)
    losses = [-math.log(max(line[place], 1e-12)) for line, place in zip(shares, right, strict=True)]
    count = len(shares)
    return {"accuracy": hits / count, "ece": math.fsum(gaps) / count, "nll": math.fsum(losses) / count}
