"""Attention between workers in a report: heat maps and a table of whose words each arm's workers attended to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvorum.lab.measure.attention_shares import AttentionShares, divided, mean
from kvorum.lab.report import figures
from kvorum.lab.report.page import WORDS, Picture, Piece, Table

if TYPE_CHECKING:
    from pandas import DataFrame


def pieces(table: DataFrame, folder: Path) -> list[Piece]:
    """Heat maps and a table of whose words each arm's workers attended to; nothing where no run was tapped."""
    if not (folder / "taps").is_dir():
        return []
    found: list[Piece] = []
    rows = []
    teams = table[table["workers"] > 1]
    for (task, arm, team), group in teams.groupby(["task", "arm", "team"], sort=True):
        paths = [folder / "taps" / f"{key}.npz" for key in group["key"]]
        runs = [AttentionShares.load(path) for path in paths if path.exists()]
        if not runs:
            continue
        own, others, rest = divided(mean(np.stack([run.pairs for run in runs]), (0,)))
        rows.append([task, arm, str(team), str(len(runs)), *(f"{share:.3f}" for share in (own, others, rest))])
        if not others:  # they see nothing of each other
            continue
        alt = f"{task}, {arm}, {team} workers: whose words each attends to; to the others' by layer, and over time"
        found += [f"### {task}, {arm}, {team} workers", Picture(f"attention-{len(rows)}", _picture(runs), alt)]
    if not rows:
        return []
    head = Table(["task", "arm", "team", "runs", "own words", "others' words", "nobody's"], rows, lead=1)
    return ["## Attention between workers", WORDS["attention"], head, *found]


def _picture(runs: Sequence[AttentionShares]) -> str:
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
