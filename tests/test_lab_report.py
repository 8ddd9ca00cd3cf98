"""The command `kvorum study` and its report."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from kvorum.cli import main
from kvorum.lab.report.page import Picture, write
from kvorum.lab.report.report import write_report
from kvorum.lab.statistics import compare
from studies_made import TOLD, rows, study
from tiny_folder import tiny_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study of a tiny model folder, killed by SIGKILL once on its way: (its file, its results)."""
    home = tmp_path_factory.mktemp("study")
    model = tiny_file()
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


def test_a_model_that_is_a_folder_has_its_picture(tmp_path: Path) -> None:
    pieces = [Picture("score-facts-/tmp/a/model", "<svg/>", "scores")]
    write("Report", pieces, tmp_path, "report")
    (link,) = re.findall(r"\]\((.*)\)", (tmp_path / "report.md").read_text())
    assert (tmp_path / link).read_text() == "<svg/>"


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
            "answer": "7" if item < 3 else channel,
        }
        for channel, scores in (("cache", [1.0, 1.0, 1.0, 0.0]), ("none", [1.0, 0.0, 0.0, 0.0]))
        for item, score in enumerate(scores)
    ).sample(frac=1, random_state=0)
    (found,) = compare.comparisons(table)
    assert (found.one, found.other) == ("hogwild/cache", "hogwild/none")
    assert found.pair.difference.value == pytest.approx(0.5)
    assert found.same.value == pytest.approx(0.75)
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
