"""Whose words the workers of a study attend to, by layer and over time: from the tap's events to heat maps.

A study with ``attention: true`` (every 4 ticks) or ``attention: N`` (every N) keeps of each run the shares of attention
as ``taps/KEY.npz`` in its folder: ``ticks`` [ticks], ``workers``, ``owners`` ("" is nobody: prompts, headings) and
``shares`` [ticks, workers, layers, owners], NaN where a worker had no tick. A member of a mismatched team counts as the
one in whose place it stands. Ticks of forced answers are left out. A worker's own words are all of its block, what it
was given there included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kvorum.errors import BadRequest
from kvorum.lab.measure.timeline import forced
from kvorum.lab.report import figures
from kvorum.lab.report.page import Picture, Piece, Table
from kvorum.programs.hogwild.team import called
from kvorum.runs.trace import Event

EVERY = 4
"""Ticks from one look to the next, where a study does not say."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the tap saw of a run."""

    ticks: npt.NDArray[np.int64]
    workers: list[str]
    owners: list[str]
    shares: npt.NDArray[np.float32]

    @classmethod
    def of(cls, events: Sequence[Event]) -> Seen | None:
        """From a run's events; None where there was no tap, or nothing before the forced answers."""
        start = next(event for event in events if event["event"] == "start")
        workers, ends = list(start["workers"]), forced(events)
        owners = ["", *workers]
        lines: list[tuple[int, npt.NDArray[np.float32]]] = []
        for event in events:
            if event["event"] != "attention":
                continue
            into = [owners.index(called(name)) for name in event["owners"]]
            rows = {row["worker"]: row["shares"] for row in event["rows"]}
            mine = {name: rows[name] for name in workers if name in rows and event["n"] < ends.get(name, math.inf)}
            if not mine:
                continue
            layers = len(next(iter(mine.values())))
            line = np.full((len(workers), layers, len(owners)), np.nan, dtype=np.float32)
            for name, shares in mine.items():
                own = line[workers.index(name)]
                own[:] = 0
                for column, share in zip(into, np.asarray(shares, dtype=np.float32).T, strict=True):
                    own[:, column] += share
            lines.append((event["n"], line))
        if not lines:
            return None
        return cls(np.array([tick for tick, _ in lines]), workers, owners, np.stack([line for _, line in lines]))

    def save(self, path: Path) -> None:
        """As a compressed npz of plain arrays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                ticks=self.ticks,
                workers=np.array(self.workers),
                owners=np.array(self.owners),
                shares=self.shares.astype(np.float16),
            )

    @classmethod
    def load(cls, path: Path) -> Seen:
        """Raises BadRequest where it is no such file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                names = [[str(name) for name in file[key]] for key in ("workers", "owners")]
                return cls(file["ticks"], names[0], names[1], file["shares"].astype(np.float32))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise BadRequest(f"{path} cannot be read; take it and its cell away and run the study again.") from error

    def columns(self) -> dict[str, Any]:
        """Of a run's record: mean shares that went to a worker's own words, to the others' and to nobody's."""
        pairs = self.pairs
        own = float(np.nanmean([pairs[at, at + 1] for at in range(len(self.workers))]))
        rest = float(np.nanmean(pairs[:, 0]))
        others = float(np.nanmean(pairs[:, 1:].sum(1))) - own if len(self.workers) > 1 else None
        table = {
            name: {owner or "nobody": round(float(share), 4) for owner, share in zip(self.owners, line, strict=True)}
            for name, line in zip(self.workers, pairs, strict=True)
            if not np.isnan(line).any()
        }
        return {"attention_own": own, "attention_others": others, "attention_rest": rest, "attention": table}

    @property
    def pairs(self) -> npt.NDArray[np.float32]:
        """``[workers, owners]``: means over ticks and layers."""
        return mean(self.shares, (0, 2))


def mean(values: npt.NDArray[np.float32], axes: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Over what is there; NaN, without a warning, where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis=axes)
    total = np.where(there, values, 0).sum(axis=axes, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def pieces(table: Any, folder: Path) -> list[Piece]:
    """Heat maps and a table of whose words each arm's workers attended to; nothing where no run was tapped."""
    found: list[Piece] = []
    rows = []
    for (task, arm, team), runs in _groups(table, folder):
        shares = mean(np.stack([run.pairs for run in runs]), (0,))
        own = float(np.nanmean([shares[at, at + 1] for at in range(team)]))
        rest, others = float(np.nanmean(shares[:, 0])), float(np.nanmean(shares[:, 1:].sum(1))) - own
        rows.append([task, arm, str(team), str(len(runs)), *(f"{share:.3f}" for share in (own, others, rest))])
        if not others:  # they see nothing of each other
            continue
        alt = f"{task}, {arm}, {team} workers: whose words each attends to; to the others' by layer, and over time"
        found += [f"### {task}, {arm}, {team} workers", Picture(f"attention-{len(rows)}", _picture(runs), alt)]
    if not rows:
        return []
    head = Table(["task", "arm", "team", "runs", "own words", "others' words", "nobody's"], rows, lead=1)
    return ["## Attention between workers", _WORDS, head, *found]


_WORDS = (
    "The share of each worker's attention that goes to words of its own, of the others and of nobody (prompts and "
    "headings): softmax weights, means over heads, layers, ticks and runs. A longer text gets more, whoever wrote it: "
    "compare an arm with its controls (`zeroed` and `random` hold nothing), not one column with another."
)


def _groups(table: Any, folder: Path) -> Iterator[tuple[tuple[str, str, int], list[Seen]]]:
    """The tapped runs of more than one worker, by task, arm and team size."""
    if not (folder / "taps").is_dir():
        return
    many = table[table["workers"] > 1]
    for (task, arm, team), rows in many.groupby(["task", "arm", "team"], sort=True):
        paths = [folder / "taps" / f"{key}.npz" for key in rows["key"]]
        runs = [Seen.load(path) for path in paths if path.exists()]
        if runs:
            yield (str(task), str(arm), int(team)), runs


def _picture(runs: Sequence[Seen]) -> str:
    workers, owners = runs[0].workers, runs[0].owners
    pairs = [(at, to) for at in range(len(workers)) for to in range(1, len(owners)) if to != at + 1]
    names = [f"{workers[at]} → {owners[to]}" for at, to in pairs]
    ticks = sorted({int(tick) for run in runs for tick in run.ticks})
    time = np.full((len(runs), len(ticks), len(pairs)), np.nan, dtype=np.float32)
    for at, run in enumerate(runs):
        of = mean(run.shares, (2,))
        time[at, [ticks.index(int(tick)) for tick in run.ticks]] = np.stack([of[:, a, b] for a, b in pairs], -1)
    layers = mean(np.stack([mean(run.shares, (0,)) for run in runs]), (0,))
    by_layer = np.stack([layers[a, :, b] for a, b in pairs])
    if len(workers) > 6:  # too many pairs to be told apart: the others together
        names = [f"{name} → others" for name in workers]
        groups = [[at for at, (reader, _) in enumerate(pairs) if reader == w] for w in range(len(workers))]
        by_layer = np.stack([by_layer[group].sum(0) for group in groups])
        time = np.stack([time[..., group].sum(-1) for group in groups], -1)
    matrix = mean(np.stack([run.pairs for run in runs]), (0,))
    return figures.heat(workers, owners, matrix, names, by_layer, ticks, mean(time, (0,)).T)
