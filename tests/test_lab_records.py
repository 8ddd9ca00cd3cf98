"""Records of studies: finished cells are kept whatever happens, read in every version, and become a table."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pandas as pd
import pytest

from kvorum.errors import BadRequest, BadTrace
from kvorum.lab.study.jobs import Progress
from kvorum.lab.study.run_cells import run_study
from kvorum.lab.study.study import Study
from kvorum.lab.study.table import Record, tabulate, write_table
from kvorum.store.study_records import Records
from kvorum.versions import STUDY
from studies_made import ONE, STUDIES, load, rows


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


def test_two_processes_do_not_destroy_each_other(tmp_path: Path) -> None:
    first, second = Records[Record](tmp_path), Records[Record](tmp_path)
    first.add({"key": "a"})
    with pytest.raises(BadRequest, match="Another process adds"):
        second.add({"key": "b"})
    first.add({"key": "c"})
    with (tmp_path / "cells.jsonl").open("ab") as file:
        file.write(b'{"key": "d", "ver')  # killed
    again = Records[Record](tmp_path)
    again.add({"key": "e"})
    assert list(Records[Record](tmp_path).done) == ["a", "c", "e"]


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
