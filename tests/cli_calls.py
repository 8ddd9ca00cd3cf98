"""The command, called in this process, and what its traces hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from kvorum.cli import main

KVORUM = [sys.executable, "-W", "error", "-m", "kvorum.cli"]


def solve(tiny: str, *words: str) -> int:
    """Where ``words`` name no program, a team."""
    team = [] if {"--program", "-p"} & set(words) else ["-p", "hogwild"]
    return main(["solve", "What is 2 + 2?", "--model", tiny, "--budget", "20", *team, *words])


def ticks(trace: Path) -> list[Any]:
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    return [event["rows"] for event in events if event["event"] == "tick"]
