"""What a run may spend and what it has spent."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import NotRequired, TypedDict, cast

from kvorum.errors import BadRequest


class LedgerData(TypedDict):
    """The entries of a ledger, as traces and the server's replies hold them."""

    prefill: int
    decoded: int
    latent: int
    ticks: int
    kv_read: int
    kv_written: int
    seconds: float
    drafted: NotRequired[int]
    accepted: NotRequired[int]


class BudgetData(TypedDict, total=False):
    """A budget in JSON: the limits that are set."""

    ticks: int
    decoded: int
    prefill: int
    latent: int
    tokens: int
    seconds: float


@dataclass(slots=True)
class Ledger:
    """What was spent. Re-encoded tokens count as prefill, latent steps are counted apart.

    ``prefill``, ``decoded`` and ``latent`` are tokens, ``ticks`` forward passes. ``kv_read`` and ``kv_written`` are
    bytes of keys and values; a byte that several workers see is read, and counted, once per tick. ``seconds`` is the
    time in forward passes. Of tokens that are supposed and computed ahead (``Engine.speculates``), ``drafted`` were
    supposed and ``accepted`` came: their ticks count as all ticks do, what they read was read with the tick before.
    """

    prefill: int = 0
    decoded: int = 0
    latent: int = 0
    ticks: int = 0
    kv_read: int = 0
    kv_written: int = 0
    seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0

    def add(self, other: Ledger) -> None:
        """Add what ``other`` holds."""
        self.prefill += other.prefill  # spelled out: done for every row of every tick
        self.decoded += other.decoded
        self.latent += other.latent
        self.ticks += other.ticks
        self.kv_read += other.kv_read
        self.kv_written += other.kv_written
        self.seconds += other.seconds
        self.drafted += other.drafted
        self.accepted += other.accepted

    @property
    def tokens(self) -> int:
        """All tokens that went through the model."""
        return self.prefill + self.decoded + self.latent

    def as_dict(self) -> LedgerData:
        """The entries as plain numbers, for JSON; seconds as they are, unrounded."""
        return cast("LedgerData", asdict(self))


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on entries of the ledger; None is no limit. A run never spends more: what does not fit is not begun.

    ``ticks`` counts forward passes; ``decoded``, ``prefill``, ``latent`` and ``tokens`` (their sum) count tokens of all
    workers; ``seconds`` are those in forward passes, and may be passed by one.

    Raises:
        BadRequest: a limit is no number, is not finite, or leaves nothing to spend.
    """

    ticks: int | None = None
    decoded: int | None = None
    prefill: int | None = None
    latent: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            kinds = (int, float) if field.name == "seconds" else int
            if isinstance(value, bool) or not isinstance(value, kinds) or value == float("inf"):
                what = "finite number" if field.name == "seconds" else "whole number"
                raise BadRequest(f"A budget's {field.name} must be a {what}, not {value!r}; leave it out for no limit.")
            if not value >= 1e-9:
                raise BadRequest(f"A budget of {value} {field.name} leaves nothing to spend; give at least 1.")

    def as_dict(self) -> BudgetData:
        """The limits that are set, for JSON."""
        return cast("BudgetData", self.limits())

    def limits(self) -> dict[str, float]:
        """The limits that are set, by the ledger's entries."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in found.items() if limit is not None}
