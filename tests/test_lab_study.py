"""Studies: which cells there are, how they are run, what is recorded, how a killed one goes on, and what is reported.

Runs are real ones of a tiny random float64 model. Covers: the grid and what is refused; budgets in written ticks for
every arm; the same table from a study that was stopped at any point, with a cut last line, and from one that was not;
failed cells; the command, killed and run again; the report's numbers against the table. Not covered: what models do.
"""

from __future__ import annotations

import csv
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import toy_engine
from kvorum.cli import main
from kvorum.errors import BadRequest, BadTrace, KvorumError, MissingExtra, UnknownName
from kvorum.lab import need
from kvorum.lab.report.report import write_report
from kvorum.lab.statistics import compare
from kvorum.lab.study.jobs import Progress
from kvorum.lab.study.runner import run_study
from kvorum.lab.study.study import Study
from kvorum.lab.study.table import Record, tabulate, write_table
from kvorum.store.records import Records
from kvorum.store.traces import read
from kvorum.versions import STUDY
from tiny_folder import tiny_folder

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
    return toy_engine.engine(kv_tokens=32768)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


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
        (UnknownName, "no key 'worker'", {"arms": [{"program": "vote", "worker": 3}]}),
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


ONE = study(items=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a study that was not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    ended = run_study(ONE, folder, load)
    assert (ended.done, ended.total, ended.failed) == (len(ONE.cells), len(ONE.cells), [])
    return folder


def test_a_stopped_study_ends_as_one_that_was_not(tmp_path: Path, whole: Path) -> None:
    draw = random.Random(1)
    for attempt in range(2):
        folder, stop = tmp_path / f"stopped{attempt}", draw.randrange(2, len(ONE.cells) - 1)

        def tell(progress: Progress, stop: int = stop) -> None:
            if progress.done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_study(ONE, folder, load, tell)
        assert len(rows(folder)) == stop
        lines = (folder / "cells.jsonl").read_bytes()
        cut = lines[: len(lines) - 1 - draw.randrange(200)]  # killed while it wrote
        (folder / "cells.jsonl").write_bytes(cut)
        seen: list[int] = []
        run_study(ONE, folder, load, lambda progress, seen=seen: seen.append(progress.done))  # type: ignore[misc]
        assert seen[0] == stop - 1, "what is done is not run again"
        assert rows(folder) == rows(whole)
    again = run_study(ONE, whole, lambda name: pytest.fail("nothing is left to run"))
    assert again.done == again.total


def test_time_left() -> None:
    """Three cells of 10 worker ticks, of which one is done after 5 seconds and one is under way."""
    progress = Progress(3, 1, work=10.0, busy=10.0, whole=30.0, started=time.perf_counter() - 5)
    assert progress.left == pytest.approx(5 * 15 / 15, rel=0.1)
    assert Progress(3, 0, busy=10.0, whole=30.0).left is None


def test_records(tmp_path: Path, whole: Path) -> None:
    table = pd.read_csv(whole / "table.csv")
    for row in table.itertuples():
        ticks = row.budget * (row.team if row.match == "tokens" else 1)
        team = row.workers * (2 if row.channel == "mismatched" else 1)
        assert row.decoded <= (ticks + 32) * team + 1
        if row.outcome == "forced" and row.spent == "ticks":
            assert row.decoded >= (ticks - 1) * team, "everybody had the same ticks to write, whatever the set-up took"
        assert row.decode_equivalents == pytest.approx(row.decoded + row.latent + row.prefill / 8)
        assert row.critical_ticks <= row.ticks
        assert 0 <= row.floor_random <= row.ceiling == 1
        assert set(json.loads(row.parts)) or row.task == "graph"
    assert table["decoded"].min() > 0
    (tmp_path / "cells.jsonl").write_bytes(b"what?\n" + (whole / "cells.jsonl").read_bytes())
    with pytest.raises(BadTrace, match="Line 1"):
        run_study(ONE, tmp_path, load)


def test_a_report_leaves_a_line_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_bytes(b'{"key": "a"}\n{"key": "b", "sc')
    records = Records[Record](tmp_path)
    tabulate(records, ["a", "b"])
    assert path.read_bytes().endswith(b'"sc'), "only who goes on with the study takes it away"
    assert (tmp_path / "table.csv").read_text().split() == ["key", "a"]
    records.add({"key": "c"})
    assert list(Records[Record](tmp_path).done) == ["a", "c"]


@pytest.mark.parametrize("name", ["core", "facts"])
def test_results_of_before_are_read(name: str, tmp_path: Path) -> None:
    """The committed results, which no version stands in: every cell of their studies is done, with the same table."""
    asked = Study.read(STUDIES / f"{name}.yaml")
    records = Records[Record](STUDIES / f"{name}-results")
    keys = [cell.key for cell in asked.cells]
    assert set(keys) <= set(records.done)
    kept = pd.read_csv(STUDIES / f"{name}-results" / "table.csv")
    assert list(kept["key"]) == keys
    write_table([records.done[key] for key in keys], tmp_path / "table.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), kept)


def test_versions_of_records(tmp_path: Path) -> None:
    (tmp_path / "cells.jsonl").write_text('{"key": "a", "world": "solo"}\n')
    records = Records[Record](tmp_path)
    records.add({"key": "b", "scenario": "vote"})
    assert json.loads((tmp_path / "cells.jsonl").read_text().splitlines()[1])["version"] == STUDY.newest
    assert Records[Record](tmp_path).done == {
        "a": {"key": "a", "scenario": "solo"},
        "b": {"key": "b", "scenario": "vote"},
    }
    (tmp_path / "cells.jsonl").write_text('{"key": "a", "version": 99}\n')
    with pytest.raises(BadTrace, match=r"Line 1 of .* is a record of a study of version 99"):
        Records[Record](tmp_path)


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


def test_parquet_holds_the_rows_of_the_csv(tmp_path: Path, whole: Path) -> None:
    text, typed = pd.read_csv(whole / "table.csv"), pd.read_parquet(whole / "table.parquet")
    pd.testing.assert_frame_equal(typed, text, check_dtype=False)
    assert typed["score"].dtype == float
    assert typed["solved"].dtype == int
    write_table([{"key": "a", "new": None}, {"key": "b", "parts": {"x": 1.0}}], tmp_path / "table.csv")
    odd = pd.read_parquet(tmp_path / "table.parquet")
    assert odd["parts"][1] == '{"x": 1.0}'
    assert odd["new"].dtype == float, "a column that nobody has filled yet"
    write_table([], tmp_path / "table.csv")
    assert pd.read_parquet(tmp_path / "table.parquet").empty


def test_a_cell_that_fails_is_tried_again(tmp_path: Path) -> None:
    small = run_study(ONE, tmp_path, lambda name: toy_engine.engine(kv_tokens=640))
    assert small.failed
    assert "free" in small.failed[0]
    assert len(rows(tmp_path)) == small.done < small.total
    after = run_study(ONE, tmp_path, load)
    assert after.done == after.total
    assert len(rows(tmp_path)) == after.total


# -- the command and the report ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study of a tiny model folder, killed by SIGKILL once on its way: (its file, its results)."""
    home = tmp_path_factory.mktemp("study")
    model = tiny_folder(home / "model")
    file = home / "tiny.yaml"
    file.write_text(json.dumps({**TOLD, "models": [str(model)], "items": 2, "budgets": [4], "kv_tokens": 32768}))
    out = home / "out"
    command = [sys.executable, "-m", "kvorum.cli", "study", "run", str(file), "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = out / "cells.jsonl"
    until = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < until:
        if log.exists() and log.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = log.read_bytes()
    assert main(["study", "run", str(file), "-o", str(out), "--json"]) == 0
    assert log.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    return file, out


def test_the_command_goes_on_after_a_kill(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, out = made
    assert main(["study", "run", str(file), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["done"] == told["cells"] == len(rows(out))


def test_report(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, out = made
    assert main(["study", "report", str(file), "-o", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r"(src|href)=[\"']?http|@import|<script", page), "the page needs nothing else"
    text = (out / "report.md").read_text()
    for link in re.findall(r"\]\((report/[^)]*)\)", text):
        assert (out / link).read_text().startswith("<svg")
    table = pd.read_csv(out / "table.csv")
    for arm in compare.arms(table):
        mine = table[
            (table["task"] == arm.where[1])
            & (table["budget"] == arm.where[3])
            & (table["arm"] == arm.arm)
            & (table["team"] == arm.where[2])
        ]
        assert arm.score.value == pytest.approx(mine["score"].mean())
        assert arm.score.n == 2
        assert f"| {arm.arm} | 2 | {arm.score.value:.2f} |" in text
    assert main(["study", "variance", str(file), "-o", str(out), "--draws", "5", "--json"]) in (0, 2)
    assert capsys.readouterr().out


def test_pairs_are_of_the_same_items(tmp_path: Path) -> None:
    """A table with planted differences: cache solves what none does not on two of four items."""
    base = {"model": "m", "weights": "exact", "task": "t", "team": 2, "workers": 2, "budget": 8, "seed": 0}
    base |= {"critical_ticks": 1, "decode_equivalents": 1.0, "wall_seconds": 1.0, "outcome": "forced"}
    base |= {"floor_random": 0.1, "floor_constant": 0.0, "ceiling": 1.0} | dict.fromkeys(compare.COORDINATION, 0.0)
    table = pd.DataFrame(
        {
            **base,
            "item": item,
            "arm": f"hogwild/{channel}",
            "program": "hogwild",
            "channel": channel,
            "score": score,
            "solved": int(score),
        }
        for channel, scores in (("cache", [1.0, 1.0, 1.0, 0.0]), ("none", [1.0, 0.0, 0.0, 0.0]))
        for item, score in enumerate(scores)
    ).sample(frac=1, random_state=0)
    (found,) = compare.comparisons(table)
    assert (found.one, found.other) == ("hogwild/cache", "hogwild/none")
    assert found.pair.difference.value == pytest.approx(0.5)
    assert (found.pair.only_one, found.pair.only_other) == (2, 0)
    assert found.p == found.pair.p == pytest.approx(0.5)
    paths = write_report(study(), table, tmp_path, "x")
    assert "hogwild/cache − hogwild/none" in paths[1].read_text()
    more = [table.assign(budget=16), table.assign(team=3), table.assign(model="n")]
    write_report(study(), pd.concat([table, *more]), tmp_path, "x")
    told = paths[1].read_text()
    assert [told.count(f"score-t-{model}.svg") for model in "mn"] == [1, 1], "budgets and teams of equal cost are drawn"
    places = re.findall(r"\| (\w) \| t \| (\d) \| (\d+) \| hogwild/cache − hogwild/none", told)
    assert places == [("m", "2", "8"), ("m", "2", "16"), ("m", "3", "8"), ("n", "2", "8")]
