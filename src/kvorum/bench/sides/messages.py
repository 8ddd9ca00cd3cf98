"""What the process of a side answers, as types; on the way between the processes they are JSON objects."""

from __future__ import annotations

from dataclasses import dataclass

from kvorum.jsontypes import JsonObject


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes resident before and after the process loaded the engine and the model."""

    before: int
    loaded: int


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that figures were taken on. ``bandwidth``: bytes of memory read per second."""

    processor: str
    cores: int | None
    threads: int
    capability: str
    versions: dict[str, str | None]
    date: str
    bandwidth: float


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """kvorum's engine, its vocabulary, and the bytes that a tick reads: of all weights, and per token of the cache."""

    engine: JsonObject
    vocab: int
    weight_bytes: int
    bytes_per_token: int


@dataclass(frozen=True, slots=True)
class Read:
    """Seconds of a prefill, and the most bytes that the process held meanwhile."""

    seconds: float
    peak: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A job is ready to be timed."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """The reply to a tick: the seconds that it took."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Closed:
    """A job is freed. ``peak``: bytes that the process held at most since it, or another, was opened."""

    peak: int


@dataclass(frozen=True, slots=True)
class ManyTeams:
    """Many teams in one engine.

    ``tick`` and ``plan``: seconds of each repeat. ``first_plan``: seconds without a remembered structure. ``slots``:
    tokens in the pages taken. ``computed`` and ``resident``: bytes per slot, by the model's shape and as the process
    grew.
    """

    tick: list[float]
    plan: list[float]
    first_plan: float
    slots: int
    computed: int
    resident: float


@dataclass(frozen=True, slots=True)
class Score:
    """A text as the model sees it: ``nll`` in nats of every token but the first, ``likeliest`` the id that the model
    held likeliest for each, ``weights`` how they are held."""

    nll: list[float]
    likeliest: list[int]
    weights: str
