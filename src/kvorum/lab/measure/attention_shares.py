"""Whose words the workers of a study attend to, by layer and over time: from the tap's events to heat maps.

A study with ``attention: true`` (every 4 ticks) or ``attention: N`` (every N) keeps of each run the shares of attention
as ``taps/KEY.npz`` in its folder: ``ticks`` [ticks], ``workers``, ``owners`` ("" is nobody: prompts, headings) and
``shares`` [ticks, workers, layers, owners], NaN where a worker had no tick. A member of a mismatched team counts as the
one in whose place it stands. Ticks of forced answers are left out. A worker's own words are all of its block, what it
was given there included.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kvorum.errors import BadRequest
from kvorum.harness.shadow_team import called
from kvorum.jsontypes import Json
from kvorum.lab.measure.worker_text import forced
from kvorum.store.events import Event

Shares: TypeAlias = npt.NDArray[np.float32]
"""Shares of attention, from 0 to 1; NaN where there is none."""

EVERY = 4
"""Ticks from one look to the next, where a study does not say."""


@dataclass(frozen=True, eq=False)
class AttentionShares:
    """What the tap saw of a run."""

    ticks: npt.NDArray[np.int64]
    workers: list[str]
    owners: list[str]
    shares: Shares

    @classmethod
    def of(cls, events: Sequence[Event]) -> AttentionShares | None:
        """From a run's events; None where there was no tap, or nothing before the forced answers."""
        start = next(event for event in events if event["event"] == "start")
        workers, ends = list(start["workers"]), forced(events)
        owners = ["", *workers]
        lines: list[tuple[int, Shares]] = []
        for event in events:
            if event["event"] != "attention":
                continue
            into = [owners.index(called(name)) for name in event["owners"]]
            summed = np.eye(len(owners), dtype=np.float32)[into]  # [owners of the event, owners]
            rows = [row for row in event["rows"] if row["worker"] in workers]
            rows = [row for row in rows if event["n"] < ends.get(row["worker"], math.inf)]
            if not rows:
                continue
            line = np.full((len(workers), len(rows[0]["shares"]), len(owners)), np.nan, dtype=np.float32)
            for row in rows:
                line[workers.index(row["worker"])] = np.asarray(row["shares"], dtype=np.float32) @ summed
            lines.append((event["n"], line))
        if not lines:
            return None
        return cls(np.array([tick for tick, _ in lines]), workers, owners, np.stack([line for _, line in lines]))

    def save(self, path: Path) -> None:
        """As a compressed npz of plain arrays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shares = self.shares.astype(np.float16)
        with path.open("wb") as file:
            np.savez_compressed(file, ticks=self.ticks, workers=self.workers, owners=self.owners, shares=shares)

    @classmethod
    def load(cls, path: Path) -> AttentionShares:
        """Raises BadRequest where it is no such file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                names = [[str(name) for name in file[key]] for key in ("workers", "owners")]
                return cls(file["ticks"], names[0], names[1], file["shares"].astype(np.float32))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise BadRequest(f"{path} cannot be read; take it and its cell away and run the study again.") from error

    def columns(self) -> dict[str, Json]:
        """Of a run's record: mean shares that went to a worker's own words, to the others' and to nobody's."""
        pairs = self.pairs
        own, others, rest = divided(pairs)
        table = {
            name: {owner or "nobody": round(float(share), 4) for owner, share in zip(self.owners, line, strict=True)}
            for name, line in zip(self.workers, pairs, strict=True)
            if not np.isnan(line).any()
        }
        between = {"attention_others": others if len(self.workers) > 1 else None}
        return {"attention_own": own, **between, "attention_rest": rest, "attention": table}

    @property
    def pairs(self) -> Shares:
        """``[workers, owners]``: means over ticks and layers."""
        return mean(self.shares, (0, 2))


def divided(pairs: Shares) -> tuple[float, float, float]:
    """The mean shares that went to a worker's own words, to the others' and to nobody's; ``pairs`` as above."""
    own = float(np.nanmean(np.diagonal(pairs, 1)))
    return own, float(np.nanmean(pairs[:, 1:].sum(1))) - own, float(np.nanmean(pairs[:, 0]))


def mean(values: Shares, axes: tuple[int, ...]) -> Shares:
    """Over what is there; NaN, without a warning, where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axes, dtype=np.float64), dtype=np.float32)
