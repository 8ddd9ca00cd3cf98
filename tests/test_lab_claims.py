"""Claims of studies: how many items they need, when they may be looked at, and what became of them; the gallery.

The boundaries are compared with published ones, verdicts with what was planted. Studies are tables made by hand here;
that ``kvorum study run`` makes such tables is in ``test_lab_report.py``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from kvorum.cli import main
from kvorum.errors import BadRequest, KvorumError, UnknownName
from kvorum.lab.statistics.claims import FOUND, NOT_FOUND, OPEN, OPPOSITE, SAME, outcomes, verdict
from kvorum.lab.statistics.sequential import levels, needed
from kvorum.lab.study.claim import Claim
from kvorum.store.study_records import Records
from studies_made import TOLD, study

ONE: dict[str, Any] = {"say": "it helps", "first": "hogwild/cache", "second": "hogwild/none"}


PLACE = ("key", "model", "task", "item", "arm", "program", "channel", "match", "team", "workers", "budget", "seed")


def claim(**changes: Any) -> Claim:
    return Claim.of({**ONE, **changes})


@pytest.mark.parametrize(
    ("looks", "published"),
    [
        (1, [1.960]),
        (2, [2.963, 1.969]),
        (3, [3.710, 2.511, 1.993]),
        (4, [4.333, 2.963, 2.359, 2.014]),
        (5, [4.877, 3.357, 2.680, 2.290, 2.031]),
    ],
)
def test_boundaries_are_those_of_lan_and_demets(looks: int, published: list[float]) -> None:
    """Of 5%, two-sided, as tables of sequential designs print them."""
    assert norm.isf(np.array(levels(looks, 0.05)) / 2) == pytest.approx(published, abs=6e-4)


def test_items_that_a_claim_needs() -> None:
    assert needed(0.5, 1.0, 0.05) == 34  # Cohen (1988): d = 0.5, 80%, two-sided
    assert needed(0.1, 0.5, 0.05) == 199
    assert needed(0.1, 0.5, 0.05 / 7) > 1.5 * 199, "a part of the level takes more"
    assert [needed(1, deviation, 0.05) for deviation in (0.2, 0.1, 0.01, 1e-6)] == [3, 2, 2, 2]


@pytest.mark.parametrize(("difference", "least", "most"), [(0.0, 0.01, 0.08), (-0.1, 0.75, 0.9)])
def test_looking_on_the_way_costs_neither_level_nor_power(difference: float, least: float, most: float) -> None:
    draw, said = np.random.default_rng(0), claim(deviation=0.4)
    ends = [verdict(draw.normal(difference, 0.4, 200), said, 0.05)[0] for _ in range(300)]
    wanted = (OPPOSITE,) if difference else (FOUND, OPPOSITE)
    assert least <= np.mean([end in wanted for end in ends]) <= most


def test_the_first_significant_look_ends_it() -> None:
    many = needed(0.1, 0.5, 0.05)
    after = np.array([1.0, 0.0, 1.0, 1.0] * 15 + [-1.0] * 300)
    word, at, p, of = verdict(after, claim(), 0.05)
    assert (word, at, of) == (FOUND, -(-many // 5), many), "what comes behind it changes nothing"
    assert p < levels(5, 0.05)[0]
    assert verdict(after[: at - 1], claim(), 0.05)[:2] == (OPEN, at - 1)
    assert verdict(-after, claim(), 0.05)[0] == OPPOSITE
    assert verdict(-after, claim(expects="less"), 0.05)[0] == FOUND


def test_the_same_is_not_merely_not_found() -> None:
    draw = np.random.default_rng(1)
    assert verdict(draw.choice(np.array([-0.1, 0.1]), 400), claim(), 0.05)[0] == SAME
    assert verdict(np.zeros(400), claim(), 0.05)[0] == SAME
    wide = np.array([1.0, -1.0] * 90 + [1.0, 0.0] * 10)
    assert verdict(wide, claim(looks=1), 0.05)[0] == NOT_FOUND


def table(cache: list[float], none: list[float], **more: Any) -> pd.DataFrame:
    arms = (("hogwild/cache", cache), ("hogwild/none", none))
    same = {"model": "m", "task": "facts", "team": 2, "budget": 5, "seed": 0}
    rows = [
        {**same, "item": item, "arm": arm, "score": score, **more} for arm, of in arms for item, score in enumerate(of)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_outcomes() -> None:
    runs = pd.concat([table([1.0] * 60, [0.0] * 50), table([0.0], [1.0], task="bundle"), table([0.0], [1.0], team=4)])
    (found,) = outcomes(runs, [claim(tasks=["facts"], teams=[2])])
    assert (found.model, found.difference.n, found.verdict) == ("m", 50, FOUND), "items that only one arm was run on"
    (wider,) = outcomes(runs, [claim()])
    assert wider.difference.n == 52
    assert outcomes(runs, [claim(second="vote/none")]) == []
    assert len(outcomes(pd.concat([runs, runs.assign(model="n")]), [claim(), claim(say="that too")])) == 4
    mute = runs.assign(counted=np.where(runs["arm"] == "hogwild/cache", 1.0, np.nan))
    assert outcomes(mute, [claim(measure="counted")]) == [], "what says nothing of any run of an arm"
    for column in ("answer", "arm"):
        with pytest.raises(BadRequest, match=f"measures {column}, which is no column of figures"):
            outcomes(runs, [claim(measure=column)])


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (BadRequest, "A claim must be a mapping", ["it helps"]),
        (BadRequest, "does not say its say", [{**ONE, "say": " "}]),
        (BadRequest, "first=3 must be text", [{**ONE, "first": 3}]),
        (UnknownName, "no key 'sey'; did you mean say", [{**ONE, "sey": "x"}]),
        (UnknownName, "no arm 'hogwild/cash'", [{**ONE, "first": "hogwild/cash"}]),
        (UnknownName, "no task 'fact'", [{**ONE, "tasks": ["fact"]}]),
        (UnknownName, "no team of '3'", [{**ONE, "teams": [3]}]),
        (BadRequest, "with itself", [{**ONE, "second": "hogwild/cache"}]),
        (BadRequest, "smallest=0", [{**ONE, "smallest": 0}]),
        (BadRequest, "looks=11", [{**ONE, "looks": 11}]),
        (UnknownName, "there are: more, less", [{**ONE, "expects": "better"}]),
        (BadRequest, "claims must be a list", {"say": "x"}),
    ],
)
def test_what_is_wrong_is_named(error: type[KvorumError], words: str, changes: Any) -> None:
    with pytest.raises(error, match=re.escape(words)):
        study(claims=changes)


def test_the_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {**TOLD, "items": 60, "tasks": [{"family": "facts"}], "claims": [ONE]}
    (tmp_path / "tiny.yaml").write_text(json.dumps(told))
    (tmp_path / "other.yaml").write_text(json.dumps({**TOLD, "name": "other"}))  # has no runs
    assert main(["study", "gallery", str(tmp_path)]) == 2
    assert "holds no study (NAME.yaml) with finished runs" in capsys.readouterr().err
    records = Records[Any](tmp_path / "tiny-results")
    whole = {"seconds": 1.0, "critical_ticks": 4, "decode_equivalents": 9.0, "wall_seconds": 1.0, "outcome": "answered"}
    whole |= {"floor_random": 0.1, "floor_constant": 0.0, "ceiling": 1.0, "answer": "7", "weights": "exact"}
    for cell in study(**told).cells:
        if cell.program == "hogwild":
            where = {name: getattr(cell, name) for name in PLACE}
            right = int(cell.channel == "cache")
            records.add({**where, **whole, "score": float(right), "solved": right})
    out = tmp_path / "gallery"
    assert main(["study", "gallery", str(tmp_path), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [str(out / "gallery.html"), str(out / "gallery.md")]
    page = (out / "gallery.md").read_text()
    assert "Of 1 claim: 1 found." in page
    assert re.search(r"\| tiny \| it helps \| toy \| .* \| 60 \| 199 \| \+1.00 \| .* \| found \(at 40\) \|", page)
    assert "## tiny\n\n180 of 360 runs of `tiny.yaml`." in page
    assert "## other" not in page
    pictures = {one.name for one in (out / "gallery").glob("*.svg")}
    assert pictures >= {"claims.svg", "tiny-score-facts.svg", "tiny-pairs.svg"}
    assert not (tmp_path / "tiny-results" / "table.csv").exists(), "a gallery writes nothing beside the results"
