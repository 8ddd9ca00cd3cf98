"""Whose words workers attend to, as a study keeps and draws it.

Covers planted events (means, absent workers, teams in another one's place, forced answers), what is kept and read back,
and a study of a tiny model with ``attention``: columns, files, report and command. The tap itself: ``test_tap.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import toy_engine
from kvorum.cli import main
from kvorum.errors import BadRequest, UnknownName
from kvorum.lab.measure.attention_shares import AttentionShares
from kvorum.lab.measure.worker_text import worker_texts
from kvorum.lab.report.attention_maps import pieces
from kvorum.lab.report.page import Picture, Table
from kvorum.lab.report.report import write_report
from kvorum.lab.study.run_cells import run_study
from kvorum.lab.study.study import Study

TEAM = ["Alice", "Bob"]


def planted(shadow: str = "") -> Any:
    """Two layers. Alice gives 0.2, then 0.4, to Bob's words; Bob, who is not there at tick 4, 0.1 to hers."""
    other = [name + shadow for name in TEAM]
    owners = ["", *TEAM] if not shadow else ["", *TEAM, *other]
    none = [0.0] * (0 if not shadow else 1)

    def row(name: str, own: float, others: float) -> dict[str, Any]:
        at = TEAM.index(name)
        shares = [0.0] * len(owners)
        shares[0], shares[1 + at], shares[owners.index(other[1 - at])] = 1 - own - others, own, others
        low = [*shares]
        low[0], low[1 + at] = low[0] - 0.1, low[1 + at] + 0.1
        return {"worker": name, "shares": [shares, low]}

    assert len(none) <= 1
    events: list[dict[str, Any]] = [{"event": "start", "workers": TEAM}]
    for tick, rows in ((0, [row("Alice", 0.5, 0.2), row("Bob", 0.3, 0.1)]), (4, [row("Alice", 0.4, 0.4)])):
        given = [{"worker": r["worker"], "text": "x"} for r in rows]
        events.append({"event": "tick", "n": tick, "rows": given})
        events.append({"event": "attention", "n": tick, "owners": owners, "rows": rows})
    late = [{"worker": "Alice", "text": "x", "given": "Time is up, so here"}]
    events.append({"event": "tick", "n": 8, "rows": late})
    events.append({"event": "attention", "n": 8, "owners": owners, "rows": [row("Alice", 0.0, 0.9)]})
    return events


@pytest.mark.parametrize("shadow", ["", "~"])
def test_planted_shares(shadow: str, tmp_path: Path) -> None:
    seen = AttentionShares.of(planted(shadow))
    assert seen is not None
    assert (seen.workers, seen.owners, seen.ticks.tolist()) == (TEAM, ["", *TEAM], [0, 4])
    assert seen.shares.shape == (2, 2, 2, 3)
    assert np.isnan(seen.shares[1, 1]).all(), "Bob had no tick 4"
    found: Any = seen.columns()
    assert found["attention"] == {
        "Alice": {"nobody": pytest.approx(0.2), "Alice": pytest.approx(0.5), "Bob": pytest.approx(0.3)},
        "Bob": {"nobody": pytest.approx(0.55), "Alice": pytest.approx(0.1), "Bob": pytest.approx(0.35)},
    }
    assert found["attention_own"] == pytest.approx((0.5 + 0.35) / 2)
    assert found["attention_others"] == pytest.approx((0.3 + 0.1) / 2)
    assert found["attention_rest"] == pytest.approx((0.2 + 0.55) / 2)
    seen.save(tmp_path / "taps" / "a.npz")
    again = AttentionShares.load(tmp_path / "taps" / "a.npz")
    assert (again.workers, again.owners) == (seen.workers, seen.owners)
    np.testing.assert_allclose(again.shares, seen.shares, atol=1e-3)
    (tmp_path / "taps" / "a.npz").write_bytes(b"no")
    with pytest.raises(BadRequest, match="cannot be read"):
        AttentionShares.load(tmp_path / "taps" / "a.npz")


def test_nothing_was_tapped(tmp_path: Path) -> None:
    assert AttentionShares.of([event for event in planted() if event["event"] != "attention"]) is None
    table = pd.DataFrame([{"task": "t", "arm": "a", "team": 2, "workers": 2, "key": "k"}])
    assert pieces(table, tmp_path) == []


def test_one_worker_alone() -> None:
    events: Any = [{"event": "start", "workers": ["Alice"]}]
    events += [{"event": "attention", "n": 0, "owners": [""], "rows": [{"worker": "Alice", "shares": [[1.0]]}]}]
    seen = AttentionShares.of(events)
    assert seen is not None
    assert seen.columns()["attention_others"] is None
    assert seen.columns()["attention_rest"] == 1.0


@pytest.mark.parametrize("workers", [2, 7])
def test_pictures(workers: int, tmp_path: Path) -> None:
    """Of a team small enough that every pair has its line, and of one that is not."""
    names = [f"W{at}" for at in range(workers)]
    for key in ("a", "b"):
        shares = np.random.default_rng(ord(key)).dirichlet(np.ones(workers + 1), size=(5, workers, 3))
        AttentionShares(np.arange(0, 20, 4), names, ["", *names], shares.astype(np.float32)).save(
            tmp_path / "taps" / f"{key}.npz"
        )
    table = pd.DataFrame(
        {"task": "t", "arm": "x/cache", "team": workers, "workers": workers, "key": key} for key in ("a", "b", "gone")
    )
    found = pieces(table, tmp_path)
    (head,) = [piece for piece in found if isinstance(piece, Table)]
    (picture,) = [piece for piece in found if isinstance(piece, Picture)]
    assert head.rows[0][:4] == ["t", "x/cache", str(workers), "2"]
    assert sum(map(float, head.rows[0][4:])) == pytest.approx(1.0, abs=2e-3)
    wanted = "W0 → W1" if workers == 2 else "W0 → others"
    assert wanted in picture.svg


@pytest.mark.forward
def test_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, Any] = {
        "name": "tapped",
        "models": ["toy"],
        "budgets": [6],
        "items": 1,
        "attention": 2,
        "traces": True,
        "tasks": [{"family": "facts"}],
        "arms": [
            {"program": "hogwild", "channels": ["cache", "none"], "workers": [2], "params": {"ends": "line"}},
            {"program": "solo"},
        ],
    }
    tapped, out = Study.of(told), tmp_path / "out"
    plain = Study.of(told | {"attention": False})
    assert [cell.key for cell in tapped.cells] == [cell.key for cell in plain.cells], "it decides no token"
    assert run_study(tapped, out, lambda name: toy_engine.engine(kv_tokens=32768)).failed == []
    assert run_study(plain, tmp_path / "plain", lambda name: toy_engine.engine(kv_tokens=32768)).failed == []
    table, other = pd.read_csv(out / "table.csv"), pd.read_csv(tmp_path / "plain" / "table.csv")
    assert list(table["answer"].fillna("")) == list(other["answer"].fillna(""))
    sums = table["attention_own"] + table["attention_others"].fillna(0) + table["attention_rest"]
    assert sums.tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    by_arm = table.set_index("arm")["attention_others"]
    assert by_arm["hogwild/none"] == 0.0
    assert by_arm["hogwild/cache"] > 0.0
    assert np.isnan(by_arm["solo@ticks"])
    seen = AttentionShares.load(out / "taps" / f"{tapped.cells[0].key}.npz")
    events = [json.loads(line) for line in (out / "traces" / f"{tapped.cells[0].key}.jsonl").read_text().splitlines()]
    assert seen.ticks.tolist() == list(range(0, max(max(lane.ticks) for lane in worker_texts(events)) + 1, 2))
    assert "Attention between workers" in write_report(tapped, table, out, "x")[1].read_text()
    assert "Attention" not in write_report(plain, other, tmp_path / "plain", "x")[1].read_text()
    file = tmp_path / "tapped.yaml"
    file.write_text(json.dumps(told))
    assert main(["study", "attention", str(file), "-o", str(out)]) == 0
    assert "<svg" in (out / "attention.html").read_text()
    assert capsys.readouterr().out.split() == [str(out / "attention.html"), str(out / "attention.md")]
    assert main(["study", "attention", str(file), "-o", str(tmp_path / "plain")]) == 2
    assert "attention: true" in capsys.readouterr().err


def test_what_is_wrong_is_named() -> None:
    told: Any = {
        "name": "x",
        "models": ["m"],
        "budgets": [1],
        "tasks": [{"family": "facts"}],
        "arms": [{"program": "vote"}],
    }
    for wrong in (-1, "often", 0.5):
        with pytest.raises(BadRequest, match="attention must be"):
            Study.of({**told, "attention": wrong})
    with pytest.raises(UnknownName, match="attentions"):
        Study.of({**told, "attentions": True})
