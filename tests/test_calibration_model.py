"""The positive control: the committed weights make a team that asks a colleague and uses the answer.

Covers: they load, and are of the committed size; with blocks shared the team is right, with blocks hidden it is not.
Not covered: zeroed and mismatched blocks and teams of 2 and 8 (studies/calibration-results), and training again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kvorum import Budget, Engine, Sampling, programs
from kvorum.lab.training.lessons import PARAMS
from kvorum.tasks.families import make

MODEL = Path(__file__).parents[1] / "studies" / "calibration-model"


def test_a_team_that_shares_is_right_and_one_that_is_hidden_is_not() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 2_000_000
    engine = Engine.load(MODEL, kv_tokens=2048)
    right = {"cache": 0, "none": 0}
    asked: dict[str, Any] = dict(PARAMS)
    for seed in range(1000, 1012):  # none of the study's
        task = make("enquiry", seed, 4)
        for channel in right:
            result = engine.run(
                programs.hogwild,
                task.task(),
                workers=4,
                channel=channel,
                sampling=Sampling(temperature=0.0),
                budget=Budget(decoded=16),
                seed=1,
                **asked,
            )
            right[channel] += task.score(result.answer).solved
    assert right["cache"] >= 11
    assert right["none"] <= 3
