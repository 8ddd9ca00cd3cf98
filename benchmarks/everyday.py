"""What a study of everyday jobs came to: every arm over all kinds, and beside the bare template on the same jobs.

Usage: python benchmarks/everyday.py studies/everyday-results [--kinds]

Reads the table that ``kvorum study run studies/everyday.yaml`` leaves behind. A score is the share of a job that is
right. Intervals are of 95%, by a bootstrap that draws kinds and then jobs of each, since jobs of a kind are alike.
Differences are of an arm and ``plain`` on the jobs that both were given. ``--kinds``: also the mean of each kind.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from kvorum.lab.statistics.compare import over_tasks

BASE = "plain"
HEADS = ("arm", "kinds", "jobs", "score", "all right", "plain on the same", "difference", "ticks", "tokens")


def interval(scores: pd.Series[float]) -> str:
    """The mean of kinds, with its interval. ``scores``: of each job, indexed by kind and seed."""
    found = over_tasks(scores)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kinds", action="store_true")
    args = parser.parse_args()
    table = pd.read_csv(args.folder / "table.csv")
    for model, runs in table.groupby("model"):
        print(f"\n{model}\n\n| {' | '.join(HEADS)} |")
        print("|" + "---|" * len(HEADS))
        base = runs[runs["program"] == BASE].set_index(["task", "item", "seed"])["score"]
        for name, rows in runs.groupby("program", sort=False):
            own = rows.set_index(["task", "item", "seed"])
            both = own.index.intersection(base.index)
            cells = [str(name), str(rows["task"].nunique()), str(len(own)), interval(own["score"])]
            cells.append(f"{int(own['solved'].sum())} of {len(own)}")
            beside = ["", ""]
            if name != BASE and len(both):
                beside = [f"{base[both].mean():.2f}", interval(own.loc[both, "score"] - base[both])]
            cells += beside + [f"{own[column].mean():.0f}" for column in ("critical_ticks", "total_tokens")]
            print(f"| {' | '.join(cells)} |")
        if args.kinds:
            means = runs.pivot_table(index="task", columns="program", values="score", sort=False)
            print(f"\n{means.round(2).to_string()}")


if __name__ == "__main__":
    main()
