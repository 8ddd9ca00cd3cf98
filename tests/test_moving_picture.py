"""The moving picture of the README shows what its trace says: who was told the fact, and who used it, in which tick.

Not covered: the run itself, which needs the large model, and the pixels, which need a browser.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL", reason="needs pillow, which comes with matplotlib: pip install 'kvorum[lab]'")
ROOT = Path(__file__).parent.parent
TRACE = ROOT / "docs" / "images" / "told.jsonl"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("moving_picture")


def test_the_captions_say_what_the_panes_show(tool: Any) -> None:
    events = tool.read(TRACE)
    told = tool.Told.of(events, tool.WORD)
    assert (told.worker, told.fact, told.held, told.by) == ("Bob", tool.FACT, tool.HELD, "Alice")
    for ticks, caption, _ in tool.frames(told):
        workers = tool.state_at(events, ticks).workers
        panes = {name: " ".join(line.text for line in workers[name].lines) for name in workers}
        assert (tool.WORD in panes["Alice"]) == ("Alice uses" in caption)
        assert ("Pepper" in panes["Bob"]) == (ticks > told.held)
        assert ticks > told.held or not any("Pepper" in pane for pane in panes.values())


def without_use(event: Any) -> None:
    for row in event["rows"] if event["event"] == "tick" else []:
        row["text"] = row["text"].replace("7", "8")


def without_fact(event: Any) -> None:
    if event["event"] == "command":
        event["kind"] = "leave"


@pytest.mark.parametrize(
    ("change", "word", "why"),
    [
        (without_use, "Pepper77", "Nobody but Bob writes"),
        (without_fact, "Pepper77", "Nobody is told"),
        (lambda event: None, "password", "Nobody but Bob writes"),  # Alice wrote it, but before he was told
    ],
)
def test_a_run_in_which_nobody_uses_the_fact_is_refused(
    tool: Any, tmp_path: Path, change: Callable[[Any], None], word: str, why: str
) -> None:
    events = [json.loads(line) for line in TRACE.read_text(encoding="utf-8").splitlines()]
    for event in events:
        change(event)
    (tmp_path / "trace.jsonl").write_text("\n".join(map(json.dumps, events)), encoding="utf-8")
    with pytest.raises(SystemExit, match=why):
        tool.Told.of(tool.read(tmp_path / "trace.jsonl"), word)
