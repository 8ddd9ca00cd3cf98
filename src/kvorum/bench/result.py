"""What a bench is asked to measure, what it has measured, and the ratios that follow from it.

Times are in seconds, memory is in bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from kvorum.jsontypes import Json, JsonObject

OURS = "kvorum"
PEERS = ("llama.cpp", "llama.cpp-shared", "transformers", "vllm")


@dataclass(frozen=True, slots=True)
class Asked:
    """What to measure.

    ``repeats``: timed ticks of each team. ``limit``: seconds; a side whose timed ticks take longer for a team gets
    three, and one that takes longer for a single step sits out from there on. ``heavy``: a peer that copies the context
    for each worker sits out where workers times context is above it. ``ignore_unknown``: of a GGUF file. ``also``: of
    `session.ALSO`.
    """

    model: str
    contexts: tuple[int, ...]
    workers: tuple[int, ...]
    peers: tuple[str, ...]
    repeats: int
    limit: float
    heavy: int
    exact: bool = False
    kv_dtype: str = "auto"
    ignore_unknown: bool = False
    also: frozenset[str] = frozenset()

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.contexts) + 2 * self.repeats + 64


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: median, minimum and maximum of ``repeats``."""

    median: float
    min: float
    max: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


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
class About:
    """What was measured, and on what; of kvorum's engine also its vocabulary, and the bytes that a tick reads: of all
    weights, and per token of the cache. ``longest``: the most tokens that its model can read; None: any number."""

    model: str
    machine: Machine
    engine: JsonObject
    vocab: int
    weight_bytes: int
    bytes_per_token: int
    longest: int | None = None

    def rate(self, team: TeamTick) -> float:
        """Bytes per second of kvorum's tick: weights and visible cache, each byte once."""
        return (self.weight_bytes + (team.context + team.workers) * self.bytes_per_token) / team.tick.median

    def share(self, team: TeamTick) -> float:
        """``rate`` as a share of the bandwidth that was measured in the same run."""
        return self.rate(team) / self.machine.bandwidth


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes that a side's process held before and after it loaded its engine and the model."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class TeamTick:
    """A tick of ``workers`` behind ``context`` tokens. ``peak``: bytes that the side's process held at most."""

    side: str
    context: int
    workers: int
    tick: Timing
    peak: int

    @property
    def rate(self) -> float:
        """Tokens per second of all workers, at the median tick."""
        return self.workers / self.tick.median


@dataclass(frozen=True, slots=True)
class Prefill:
    """Seconds to read ``context`` tokens into an empty cache: to the first token. ``peak`` as in `TeamTick`."""

    side: str
    context: int
    seconds: Timing
    peak: int

    @property
    def rate(self) -> float:
        """Tokens per second, at the median."""
        return self.context / self.seconds.median


@dataclass(frozen=True, slots=True)
class Attention:
    """What ``context`` shared tokens add to a tick of ``workers``, in seconds: against a context of one token."""

    context: int
    workers: int
    added: Timing


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many teams in one engine: a tick, its plan, the plan without a remembered structure (seconds), and the bytes per
    token slot of the cache, by the model's shape and as the process grew."""

    teams: int
    workers: int
    context: int
    tick: Timing
    plan: Timing
    first_plan: float
    slots: int
    computed: int
    resident: float


@dataclass(frozen=True, slots=True)
class Quality:
    """The fast mode against the exact one on the same text, teacher-forced, ``at_once`` tokens per forward in the fast
    one. ``exact``, ``fast``: perplexities. ``agreement``: how often both hold the same token likeliest.
    ``weights``: how the fast mode holds them."""

    tokens: int
    at_once: int
    weights: str
    exact: float
    fast: float
    agreement: float

    @property
    def loss(self) -> float:
        """By how much the perplexity is higher: 0.02 is two per cent."""
        return self.fast / self.exact - 1


TORCH = "import torch"
"""Among the starts: an interpreter that does no more than that."""
WITHOUT_MODEL = ("kvorum --help", "an error")
"""Among the starts: whole commands that need no model."""


@dataclass(slots=True)
class Bench:
    """All that a run has measured so far. ``loaded``: by side. ``spans``: a tick by the number of closed spans.
    ``start``: from the command to the first token of a later `kvorum solve` with four workers; ``starts``: of each
    command with one, and beside them. ``left_out``: what was asked for and not measured, with why."""

    ticks: list[TeamTick] = field(default_factory=list)
    prefill: list[Prefill] = field(default_factory=list)
    loaded: dict[str, Loaded] = field(default_factory=dict)
    spans: dict[int, Timing] = field(default_factory=dict)
    attention: list[Attention] = field(default_factory=list)
    crowd: Crowd | None = None
    quality: list[Quality] = field(default_factory=list)
    start: Timing | None = None
    starts: dict[str, Timing] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def tick(self, side: str, context: int, workers: int) -> TeamTick | None:
        """The tick of that team, if it was measured."""
        found = (t for t in self.ticks if (t.side, t.context, t.workers) == (side, context, workers))
        return next(found, None)

    def contexts(self) -> list[int]:
        """The contexts of the ticks, in the order in which they were measured."""
        return list(dict.fromkeys(tick.context for tick in self.ticks))

    def over(self, peer: str, context: int, workers: int) -> float | None:
        """kvorum's tokens per second over the peer's."""
        ours, theirs = self.tick(OURS, context, workers), self.tick(peer, context, workers)
        return None if ours is None or theirs is None else ours.rate / theirs.rate

    def growth(self, side: str, context: int, workers: int) -> float | None:
        """A tick of ``workers`` over a tick of one worker."""
        one, many = self.tick(side, context, 1), self.tick(side, context, workers)
        return None if one is None or many is None else many.tick.median / one.tick.median

    def prefill_over(self, peer: str, context: int) -> float | None:
        """kvorum's prefill tokens per second over the peer's."""
        rates = {row.side: row.rate for row in self.prefill if row.context == context}
        return rates[OURS] / rates[peer] if {OURS, peer} <= set(rates) else None

    def after_torch(self) -> list[tuple[float | None, str]]:
        """Seconds from the end of torch's import to the first token, of each command that was measured."""
        commands = {name: timing for name, timing in self.starts.items() if name not in (TORCH, *WITHOUT_MODEL)}
        return [(timing.median - self.starts[TORCH].median, name) for name, timing in commands.items()]

    def attention_growth(self, many: int) -> float | None:
        """What the context adds to a tick of ``many`` workers, over what it adds to one's."""
        added = {row.workers: row.added.median for row in self.attention}
        return added[many] / added[1] if {1, many} <= set(added) and added[1] > 0 else None

    def spans_over(self, count: int) -> float | None:
        """A tick with ``count`` closed spans over one with the same tokens in a single one."""
        return self.spans[count].median / self.spans[1].median if {1, count} <= set(self.spans) else None

    def as_json(self, about: About, command: list[str]) -> dict[str, Json]:
        """One object for machines; times in seconds, memory in bytes."""
        found = asdict(self)
        return {
            "about": asdict(about) | {"command": command},
            **found,
            "ticks": [
                asdict(team) | {"tokens_per_second": team.rate, "ticks_per_second": 1 / team.tick.median}
                for team in self.ticks
            ],
            "prefill": [asdict(row) | {"tokens_per_second": row.rate} for row in self.prefill],
            "spans": [{"spans": count, "tick": timing} for count, timing in found["spans"].items()],
            "quality": [asdict(row) | {"loss": row.loss} for row in self.quality],
        }
