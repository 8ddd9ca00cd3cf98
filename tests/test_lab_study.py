"""Studies: which cells there are, what is refused, and how they are run.

Runs are real ones on the fake backend. Covers: the grid and what is refused; budgets in written ticks for every arm;
traces; a fact that one worker is told; failed cells. Not covered: records and the table (``test_lab_records.py``), the
report (``test_lab_report.py``), what models do.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import toy_engine
from kvorum.errors import BadRequest, KvorumError, MissingExtra, UnknownName
from kvorum.lab import need
from kvorum.lab.report.report import write_report
from kvorum.lab.study.jobs import Progress
from kvorum.lab.study.run_cells import run_study
from kvorum.lab.study.study import Study
from kvorum.store.traces import read
from studies_made import ONE, STUDIES, TOLD, load, rows, study

# -- the grid ---------------------------------------------------------------------------------------------------------


def test_cells() -> None:
    cells = study().cells
    assert len({cell.key for cell in cells}) == len(cells)
    by_task = {task: [c for c in cells if c.task == task] for task in ("bundle", "facts", "graph")}
    assert {c.arm for c in by_task["bundle"]} == {
        "hogwild/cache",
        "hogwild/none",
        "hogwild/mismatched",
        "vote/none",
        "solo@ticks",
        "solo@tokens",
    }
    assert {c.arm for c in by_task["graph"]} == {"solo@ticks", "solo@tokens"}, "hogwild cannot play on a graph"
    assert {c.ticks for c in cells if c.match == "tokens"} == {10}
    assert len(by_task["bundle"]) == 2 * 6
    more = study(budgets=[5, 6], seeds=[0, 1])
    assert {cell.key for cell in cells} < {cell.key for cell in more.cells}, "a wider study keeps what was done"
    assert cells[0].key == "31d81b69422e54131c75", "what was done before there were options is not done again"


def test_an_arm_has_a_temperature_of_its_own() -> None:
    arms = [{"program": "vote", "workers": [2]}, {"program": "solo", "temperature": 0}]
    cells = study(arms=arms, tasks=[{"family": "facts"}]).cells
    assert {(c.program, c.temperature) for c in cells} == {("vote", 0.6), ("solo", 0)}


def test_an_arm_that_comes_twice_has_a_label() -> None:
    kinds = ("boxed", "text")
    arms = [{"program": "vote", "workers": [2], "params": {"answer": kind}, "label": kind} for kind in kinds]
    cells = study(arms=arms, tasks=[{"family": "facts"}], items=1).cells
    assert [cell.arm for cell in cells] == ["vote/boxed", "vote/text"]
    assert len({cell.key for cell in cells}) == 2


def test_an_arm_may_name_its_tasks() -> None:
    arms = [
        {"program": "vote", "workers": [2], "tasks": ["facts"]},
        {"program": "vote", "workers": [3], "tasks": ["named"]},
        {"program": "solo"},
    ]
    cells = study(arms=arms, tasks=[{"family": "facts"}, {"family": "facts", "label": "named"}]).cells
    assert {(c.program, c.task, c.team) for c in cells} == {
        *(("vote", "facts", 2), ("vote", "named", 3)),
        *(("solo", "facts", 2), ("solo", "named", 3)),  # one worker stands beside the teams of the task
    }


def test_an_arm_has_budgets_of_its_own_and_one_worker_stands_beside_it() -> None:
    arms = [
        {"program": "vote", "workers": [2]},
        {"program": "vote", "workers": [3], "budgets": [7, 9]},
        {"program": "solo", "match": ["tokens"], "budgets": [5, 9]},
    ]
    found = {(c.arm, c.team, c.ticks) for c in study(arms=arms, tasks=[{"family": "facts"}]).cells}
    assert found == {
        ("vote/none", 2, 5),
        ("vote/none", 3, 7),
        ("vote/none", 3, 9),
        ("solo@tokens", 2, 10),
        ("solo@tokens", 3, 27),
    }
    assert not {c.key for c in study().cells} & {c.key for c in study(first_item=2).cells}
    assert [c.key for c in study(first_item=1, items=1).cells] == [c.key for c in study().cells if c.item == 1]


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (UnknownName, "no key 'model'", {"model": "x"}),
        (BadRequest, "list of at least one", {"budgets": []}),
        (BadRequest, "seeds must be a list of at least one", {"seeds": []}),
        (BadRequest, "must be a list of integers", {"seeds": ["one"]}),
        (BadRequest, "must be a finite number of at least 0", {"temperature": float("nan")}),
        (BadRequest, "whole numbers of ticks", {"budgets": ["many"]}),
        (BadRequest, "at least 1", {"items": 0}),
        (BadRequest, "first_item=-1 must be a whole number of at least 0", {"first_item": -1}),
        (BadRequest, "whole numbers of ticks", {"arms": [{"program": "vote", "budgets": 48}]}),
        (BadRequest, "temperature is a number", {"arms": [{"program": "vote", "temperature": -1}]}),
        (BadRequest, "temperature is a number", {"arms": [{"program": "vote", "temperature": True}]}),
        (UnknownName, "no program 'hog'", {"arms": [{"program": "hog"}]}),
        (UnknownName, "no channel 'latent'", {"arms": [{"program": "hogwild", "channels": ["latent"]}]}),
        (UnknownName, "matched by 'tokens'", {"arms": [{"program": "vote", "match": ["tokens"]}]}),
        (
            BadRequest,
            "no parameter 'layuot'; did you mean layout",
            {"arms": [{"program": "hogwild", "params": {"layuot": 1}}]},
        ),
        (
            BadRequest,
            "9 Byzantine agents of 4",
            {
                "tasks": [{"family": "agreement"}],
                "arms": [{"program": "consensus", "params": {"byzantine": 9}}],
            },
        ),
        (UnknownName, "no task 'bundel'", {"arms": [{"program": "vote", "tasks": ["bundel"]}]}),
        (BadRequest, "tasks must be a list", {"arms": [{"program": "vote", "tasks": []}]}),
        (UnknownName, "no key 'worker'", {"arms": [{"program": "vote", "worker": 3}]}),
        (BadRequest, "names one arm", {"arms": [{"program": "hogwild", "channels": ["cache", "none"], "label": "x"}]}),
        (UnknownName, "no task 'bundles'", {"tasks": [{"family": "bundles"}]}),
        (UnknownName, "no option 'size'", {"tasks": [{"family": "bundle", "size": 1}]}),
        (BadRequest, "inject.tick", {"tasks": [{"family": "facts", "inject": {"tick": "soon"}}]}),
        (BadRequest, "no cells", {"tasks": [{"family": "graph"}], "arms": [{"program": "vote"}]}),
        (BadRequest, "65 workers", {"arms": [{"program": "vote", "workers": [65]}]}),
    ],
)
def test_what_is_wrong_is_named(error: type[KvorumError], words: str, changes: dict[str, Any]) -> None:
    with pytest.raises(error, match=re.escape(words)):
        study(**changes)


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(json.dumps({key: value for key, value in TOLD.items() if key != "name"}))
    assert Study.read(file).name == "some"
    for text, words in (("a: [", "not YAML"), ("- 1", "mapping"), ("name: x", "does not say its")):
        file.write_text(text)
        with pytest.raises(BadRequest, match=words):
            Study.read(file)
    with pytest.raises(BadRequest, match="cannot be read"):
        Study.read(tmp_path / "none.yaml")
    for text, words in (
        ("STUDY = 1 / 0", "could not be run: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "could not be run: SystemExit: 3"),
        ("study = {}", "defines no STUDY"),
        ("STUDY = 3", "mapping"),
        ("STUDY = {'name': 'x'}", "does not say its"),
        ("x = (", "could not be run: SyntaxError"),
    ):
        (tmp_path / "some.py").write_text(text)
        with pytest.raises(BadRequest, match=words):
            Study.read(tmp_path / "some.py")
    with pytest.raises(BadRequest, match="no such file"):
        Study.read(tmp_path / "none.py")
    quick = Study.read(STUDIES / "quick.yaml")
    assert {"cache", "text", "none", "mismatched", "zeroed"} <= {cell.channel for cell in quick.cells}
    with pytest.raises(MissingExtra, match=r"kvorum\[lab\]"):
        need("kvorum_has_no_such_package")


def test_python_files(tmp_path: Path) -> None:
    """A dictionary that the file makes, or a Study: the cells are those of the same study said at once."""
    plain = {key: value for key, value in TOLD.items() if key != "name"} | {"budgets": [5, 10, 20]}
    file = tmp_path / "grid.py"
    file.write_text(f"STUDY = {plain!r} | {{'budgets': [5 * 2**at for at in range(3)]}}")
    assert Study.read(file) == Study.of(plain | {"name": "grid"})
    file.write_text(f"from kvorum.lab.study.study import Study\nSTUDY = Study.of({plain!r} | {{'name': 'mine'}})")
    assert Study.read(file) == Study.of(plain | {"name": "mine"})


# -- running ----------------------------------------------------------------------------------------------------------


def test_time_left() -> None:
    """Three cells of 10 worker ticks, of which one is done after 5 seconds and one is under way."""
    progress = Progress(3, 1, work=10.0, busy=10.0, whole=30.0, started=time.perf_counter() - 5)
    assert progress.left == pytest.approx(5 * 15 / 15, rel=0.1)
    assert Progress(3, 0, busy=10.0, whole=30.0).left is None


def test_traces_are_kept(tmp_path: Path) -> None:
    asked = study(items=1, traces=True)
    run_study(asked, tmp_path, load)
    done = {line["key"]: line for line in map(json.loads, (tmp_path / "cells.jsonl").read_text().splitlines())}
    assert {path.stem for path in (tmp_path / "traces").iterdir()} == set(done) == {cell.key for cell in asked.cells}
    for key, record in done.items():
        end = read(tmp_path / "traces" / f"{key}.jsonl")[-1]
        assert end["event"] == "end"
        assert (end["answer"] or "") == record["answer"]
    with pytest.raises(BadRequest, match="traces"):
        study(traces="yes")


def test_an_injected_fact_is_recorded(tmp_path: Path) -> None:
    told = study(items=1, budgets=[12], tasks=[{"family": "facts", "inject": {"tick": 4}}, {"family": "facts"}])
    assert run_study(told, tmp_path, load).failed == []
    table = pd.read_csv(tmp_path / "table.csv")
    with_it, without = table[table["task"] == "facts+told"], table[table["task"] == "facts"]
    assert set(with_it["arm"]) == set(without["arm"])
    assert (with_it["told_tick"] == 4).all()
    assert without["told_tick"].isna().all()
    alone = with_it["workers"] == 1
    assert with_it[alone]["reacted"].isna().all()
    assert with_it[~alone]["reacted"].between(0, 1).all()
    text = write_report(told, table, tmp_path, "x")[1].read_text()
    assert "| reacted |" in text
    old = table[table["task"] == "facts"].drop(columns=["told_tick", "reacted", "reaction_ticks", "injected"])
    assert "| reacted" not in write_report(told, old, tmp_path, "x")[1].read_text()


def test_a_cell_that_fails_is_tried_again(tmp_path: Path) -> None:
    small = run_study(ONE, tmp_path, lambda name: toy_engine.fake(kv_tokens=640))
    assert small.failed
    assert "free" in small.failed[0]
    assert len(rows(tmp_path)) == small.done < small.total
    after = run_study(ONE, tmp_path, load)
    assert after.done == after.total
    assert len(rows(tmp_path)) == after.total
