"""Small studies, how they are run without a model, and what is read of their results."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import toy_engine
from kvorum.lab.study.study import Study

TOLD: dict[str, Any] = {
    "name": "tiny",
    "models": ["toy"],
    "budgets": [5],
    "items": 2,
    "tasks": [{"family": "bundle", "parts": 2}, {"family": "facts"}, {"family": "graph", "problem": "leader"}],
    "arms": [
        {"program": "hogwild", "channels": ["cache", "none", "mismatched"], "workers": [2], "params": {"ends": "line"}},
        {"program": "vote", "workers": [2]},
        {"program": "solo", "match": ["ticks", "tokens"]},
    ],
    "concurrency": 4,
}

STUDIES = Path(__file__).parents[1] / "studies"

TIMES = ("seconds", "wall_seconds", "kv_read")


def study(**changes: Any) -> Study:
    return Study.of({**TOLD, **changes})


def load(name: str) -> Any:
    return toy_engine.fake(kv_tokens=32768)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


ONE = study(items=1)
