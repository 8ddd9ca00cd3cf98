"""How good detectors are said to be: planted confusions give planted precision and recall.

Records are made up, with known hits, misses and false findings of each mode; the intervals are statsmodels' own. Covers
also: whom a finding blames, modes that may follow from a fault, faults that did not take effect, runs without a fault,
the choice of thresholds on development records alone, and the table. Not covered: the detectors (test_faults.py).
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from kvorum.lab.detect.detect import THRESHOLDS
from kvorum.lab.faults.catalogue import FAULTS
from kvorum.lab.faults.judge import Confusion, confusions, lags, pieces, tune, usable
from kvorum.lab.faults.study import write_results
from kvorum.lab.report.page import as_markdown

_numbers = count()


def record(fault: str = "", found: dict[tuple[str, str], float] | None = None, **changes: Any) -> Any:
    """A run in which ``fault`` was Alice's."""
    strengths = [[mode, worker, strength] for (mode, worker), strength in (found or {}).items()]
    labels = [[FAULTS[fault].mode, "Alice"]] if fault else []
    made = {
        "key": str(next(_numbers)),
        "by": "scripted",
        "seed": 9,
        "fault": fault,
        "labels": labels,
        "took": bool(fault),
        "fault_tick": 10 if fault else None,
        "strengths": strengths,
        "findings": [[mode, worker, 25, ""] for mode, worker, _ in strengths],
    }
    return made | changes


counts = st.integers(0, 30)


@given(hits=counts, misses=counts, false=counts, quiet=counts)
def test_planted_confusions_give_planted_figures(hits: int, misses: int, false: int, quiet: int) -> None:
    runs = [record("lie", {("lie", "Alice"): 1.0}) for _ in range(hits)]
    runs += [record("lie") for _ in range(misses)]
    runs += [record("", {("lie", "Bob"): 1.0}) for _ in range(false)]
    runs += [record("") for _ in range(quiet)]
    one = confusions(runs)["lie"]
    assert (one.hits, one.misses, one.false, one.alarms, one.clean) == (hits, misses, false, false, false + quiet)
    for interval, right, n in (
        (one.precision, hits, hits + false),
        (one.recall, hits, hits + misses),
        (one.alarm_rate, false, false + quiet),
    ):
        if not n:
            assert interval is None, "without findings there is no precision, without labels no recall"
            continue
        assert interval is not None
        assert interval.value == pytest.approx(right / n)
        assert interval.n == n
        assert (interval.low, interval.high) == pytest.approx(proportion_confint(right, n, method="wilson"))
    others = [other for mode, other in confusions(runs).items() if mode != "lie"]
    assert all((other.hits, other.misses, other.false, other.alarms) == (0, 0, 0, 0) for other in others)


def test_every_mode_has_its_own() -> None:
    modes = [fault.mode for fault in FAULTS.values()]
    runs = []
    for at, (name, fault) in enumerate(FAULTS.items(), start=1):
        runs += [record(name, {(fault.mode, "Alice"): 99.0}) for _ in range(at)]
        runs += [record(name) for _ in range(2 * at)]
        runs += [record("", {(fault.mode, "Bob"): 99.0}) for _ in range(3 * at)]
    found = confusions(runs)
    assert set(modes) == set(found), "every detector has a fault that it is judged by, and every fault a detector"
    for at, mode in enumerate(modes, start=1):
        assert found[mode].recall == pytest.approx(found[mode].recall)
        assert (found[mode].hits, found[mode].misses, found[mode].false) == (at, 2 * at, 3 * at)
        precision = found[mode].precision
        assert precision is not None
        assert precision.value == pytest.approx(1 / 4)


def test_blame_and_what_may_follow() -> None:
    wrong_worker = confusions([record("lie", {("lie", "Bob"): 1.0})])["lie"]
    assert (wrong_worker.hits, wrong_worker.misses, wrong_worker.false) == (0, 1, 1)
    assert "withholding" in FAULTS["lie"].also
    follows = confusions([record("lie", {("lie", "Alice"): 1.0, ("withholding", "Alice"): 1.0})])
    assert follows["withholding"].false == 0
    assert confusions([record("flake", {("withholding", "Alice"): 1.0})])["withholding"].false == 1
    void = record("lie", {("lie", "Alice"): 1.0}, took=False)
    assert usable([void]) == []
    assert confusions([void])["lie"].hits == 0


def test_thresholds() -> None:
    """Echo strengths of the guilty 0.7 to 0.9 and of the innocent up to 0.4: any cut between is perfect."""
    runs = [record("echo", {("echo", "Alice"): at / 100}, seed=0) for at in (70, 80, 90)]
    runs += [record("", {("echo", "Bob"): at / 100}, seed=0) for at in (10, 25, 40)]
    chosen = tune(runs)
    assert chosen["echo"] == pytest.approx(0.55), "the middle of the widest gap"
    assert set(chosen) == {"echo"}, "nothing is chosen where there is nothing to choose from"
    at_default = confusions(runs)["echo"]
    assert (at_default.hits, at_default.misses, at_default.false) == (2, 1, 0)
    assert THRESHOLDS["echo"] == 0.8
    tuned = confusions(runs, chosen)["echo"]
    assert (tuned.hits, tuned.misses, tuned.false, tuned.f1) == (3, 0, 0, 1.0)
    assert Confusion().f1 == 0.0


def test_the_table_is_of_held_out_seeds(tmp_path: Path) -> None:
    runs = [record("echo", {("echo", "Alice"): 0.9}, seed=1) for _ in range(5)]
    runs += [record("echo", {("echo", "Alice"): 0.9}, seed=2) for _ in range(3)] + [record("echo", seed=2)]
    runs += [record("", seed=2), record("lie", seed=2, took=False)]
    text = write_results(runs, tmp_path, 2, "kvorum study faults").read_text()
    assert "| echo | 0.75 [0.30, 0.95] 3/4 | 1.00 [0.44, 1.00] 3/3 | 0.00 [0.00, 0.79] 0/1 | 15 |" in text
    assert "5 runs; in 1 more" in text
    assert "lie" not in as_markdown(pieces({"x": runs[:1]}))
    assert lags(runs)["echo"] == [15] * 8
