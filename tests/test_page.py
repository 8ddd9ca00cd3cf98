"""The page, in a real headless Chromium against the real server on a tiny random model.

Covers a run that is started, watched, paused, stepped, steered, stopped, forked and replayed; a trace that is shared
and opened as a file; a server that is killed meanwhile; a server with a key; text that would be markup; and the map of
views against what the trace tells. Not covered: keyboard and screens (test_page_hands.py), whose words were used
(test_page_words.py), the server's own replies (test_serve*.py), what a real model writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from browser import (
    ENDLESS,
    PAGE,
    ROOM,
    TRACES,
    WAIT,
    begin,
    chromium,
    desk,
    drawn,
    engine,
    expect,
    model,
    reach,
    server,
    slide,
    still,
    texts,
    ticks,
    trace,
    until,
    visit,
)
from kvorum.store.events import Event
from serving import Process, served
from test_trace_lengths import reckon

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'kvorum[test]'")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
MARKUP = "<img src=x onerror=document.title='hacked'><script>document.title='hacked'</script><b>bold</b>"
SAID = "<svg onload=alert(2)><a href=//example.org>here</a>"
NAME = "<img src=x onerror=alert(1)>"


# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_is_started_watched_steered_stopped_and_replayed(visit: Callable[..., Any]) -> None:
    page = visit()
    begin(page, names="Ann, Ben")
    assert ticks(page) == 0
    page.wait_for_selector(".column h3")  # the run's first event may come after its status
    assert page.locator(".column h3").all_inner_texts() == ["Ann", "Ben"]
    page.click("#step")
    reach(page, 1)
    expect(page, "#run-chip", "paused")
    page.click("#step")
    reach(page, 2)
    assert ticks(page) == 2
    page.select_option("#say-to", "Ben")
    page.fill("#say-text", "look here")
    held: list[Any] = []
    page.route("**/commands", lambda route: held.append(route))
    page.click("#say-form button")
    page.select_option("#say-to", "")
    page.fill("#say-text", "all of you")  # while the first words are still on their way
    held[0].continue_()
    page.unroute("**/commands")
    expect(page, "#status", re.compile("Said to Ben"))
    page.click("#say-form button")
    page.click("#pause")
    expect(page, "#run-chip", "running")
    reach(page, 12)
    assert "look here" in texts(page)[1]
    assert page.locator("#acts li").all_inner_texts() == [
        "Tick 2, said to Ben: look here",
        "Tick 2, said to all: all of you",
    ]
    page.click("#pause")
    expect(page, "#run-chip", "paused")
    still(page)
    shown = ticks(page)
    page.click("#worker-0 ~ .tools button:text('stop')")
    page.click("#step")
    expect(page, ".column .state", re.compile("has left"))
    reach(page, shown + 1)
    page.click("#stop")
    expect(page, "#run-chip", "stopped")
    api.expect(page.locator("#steer")).to_be_hidden()

    commands = [(e["kind"], e["worker"], e["text"].strip()) for e in trace(page) if e["event"] == "command"]
    assert commands == [("say", "Ben", "look here"), ("share", "", "all of you"), ("leave", "Ann", "")]
    everything = texts(page)
    slide(page, 0)
    assert "".join(texts(page)).strip() == ""
    before = [""] * 2
    for share in (0.25, 0.5, 0.75, 1):
        slide(page, share)
        now = texts(page)
        assert all(len(old) <= len(new) for old, new in zip(before, now, strict=True))
        before = now
    assert before == everything
    page.select_option("#speed", "0.5")
    page.evaluate(
        "window.shown = new Set(); new MutationObserver(() => window.shown.add(document.querySelector('#time-label')"
        ".textContent)).observe(document.querySelector('#time-label'), {childList: true, subtree: true})"
    )
    page.click("#play")
    until(page, "window.shown.size > 3 && document.querySelector('#latest').hidden")
    drawn(page)
    assert texts(page) == everything


@pytest.mark.slow  # once in some runs beside other tests a button is not visible in time; the cause is not found yet
def test_the_answer_is_asked_for_and_the_run_is_forked(visit: Callable[..., Any]) -> None:
    page = visit()
    begin(page)
    page.click("#pause")
    reach(page, 6)
    page.click("#answer-now")
    expect(page, "#run-chip", "finished")
    api.expect(page.locator("#answer")).to_be_visible()
    slide(page, 0.5)
    api.expect(page.locator("#answer")).to_be_hidden()
    shown, old = ticks(page), page.url
    first = [event for event in trace(page) if event["event"] == "tick"][:shown]
    page.click("#fork")
    page.wait_for_url(lambda url: url != old)
    reach(page, shown + 3)
    page.click("#stop")
    expect(page, "#run-chip", "stopped")
    again = [event for event in trace(page) if event["event"] == "tick"][:shown]
    assert [event["rows"] for event in again] == [event["rows"] for event in first]
    assert f"forked at tick {shown}" in page.inner_text("#run-facts")


@pytest.mark.parametrize(
    ("program", "fields"),
    [("hogwild", {"workers": "3"}), ("tree", {"workers": "4"}), ("consensus", {"workers": "3"})],
)
def test_the_map_is_what_the_trace_tells(visit: Callable[..., Any], program: str, fields: dict[str, str]) -> None:
    page = visit()
    begin(page, program=program, **fields, budget="60")
    page.click("#pause")
    expect(page, "#run-chip", "finished")
    events = trace(page)
    lengths = reckon(cast("list[Event]", events))
    views = {event["worker"]: event["items"] for event in events if event["event"] == "view"}
    told = {
        worker: [(name, (lengths[block] if hi is None else hi) - lo) for name, lo, hi, block, _ in items]
        for worker, items in views.items()
    }
    shown = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#map .row')].map(row => [row.dataset.worker,"
        "[...row.querySelectorAll('.segment:not(.leaving)')].sort((a, b) => parseFloat(a.style.left)"
        "- parseFloat(b.style.left)).map(each => [each.dataset.block, Number(each.dataset.tokens)])]))"
    )
    for worker, items in told.items():
        assert sorted(map(tuple, shown[worker])) == sorted(items)
        total = page.inner_text(f"#map .row[data-worker='{worker}'] .total")
        assert int(total) == sum(length for _, length in items)
    ledger = next(event["ledger"] for event in events if event["event"] == "end")
    assert page.inner_text("#meters [data-entry=decoded]").replace("\u202f", "") == str(ledger["decoded"])


def test_a_trace_is_shared_as_a_file_and_opened_again(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    begin(page, budget="25")
    page.click("#pause")
    expect(page, "#run-chip", "finished")
    slide(page, 1)
    live = texts(page)
    with page.expect_download() as download:
        page.keyboard.press("d")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == trace(page)

    other = visit()
    other.set_input_files("#file", path)
    expect(other, "#run-chip", "trace")
    other.keyboard.press("End")
    drawn(other)
    assert texts(other) == live
    api.expect(other.locator("#steer")).to_be_hidden()
    start = path.read_text().splitlines()[0]
    for text, trouble in (
        ("{}\nno\n", "not an event of a kvorum trace"),
        (f"{start}\nno\n{start}\n", "Line 2 of broken.jsonl is not JSON"),
        (json.dumps({"event": "start", "format": 5}), "not a kvorum trace of format 1 to 4"),
        (f'{start}\n{{"event":"tick"}}\n', r"Line 2 of broken.jsonl \(tick\) lacks its n; the trace is damaged\.$"),
        (f'{start}\n{{"event":"view","worker":"A","items":"x"}}\n', r"Line 2 of broken.jsonl \(view\) lacks its items"),
        (f'{start}\n{{"event":"view","worker":"A","items":[["A",0,"x",1,2]]}}\n', r"\(view\) lacks its items"),
        (f'{start}\n{{"event":"tick","n":0,"rows":[{{"worker":"A"}}]}}\n', r"\(tick\) lacks its rows"),
        (f'{start}\n{{"event":"command","kind":"say","text":{{}}}}\n', r"\(command\) lacks its text"),
        (json.dumps(json.loads(start) | {"workers": "x"}), r"Line 1 of broken.jsonl \(start\) lacks its workers"),
    ):
        (tmp_path / "broken.jsonl").write_text(text)
        other.set_input_files("#file", tmp_path / "broken.jsonl")
        expect(other, "#trouble", re.compile(trouble))
    (tmp_path / "cut.jsonl").write_text(path.read_text()[:-9])
    other.set_input_files("#file", tmp_path / "cut.jsonl")
    expect(other, "#run-chip", "unfinished trace")
    api.expect(other.locator("#trouble")).to_be_hidden()


def test_runs_are_listed_and_deleted(visit: Callable[..., Any]) -> None:
    page = visit()
    begin(page, problem="The one to delete")
    page.click("#stop")
    expect(page, "#run-chip", "stopped")
    page.click("nav a[data-page=runs]")
    item = page.locator("#runs-list li", has_text="The one to delete")
    api.expect(item).to_have_count(1)
    item.locator("a").click()
    expect(page, "#run-problem", "The one to delete")
    page.keyboard.press("r")
    item.locator("button").dblclick()  # the second one must come within seconds
    api.expect(item).to_have_count(0)


def test_a_killed_server_is_taken_up_where_it_broke(visit: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    own = Process(model, tmp_path, "--max-ticks", ENDLESS, "--kv-tokens", "1000000")
    page = visit(url=f"{own.up.url}/", fails=True)
    try:
        begin(page)
        page.click("#pause")
        reach(page, 20)
    finally:
        own.end()
    expect(page, "#trouble", re.compile("connection is lost"))
    shown = ticks(page)
    with served(engine(model), tmp_path, place={"port": int(own.up.url.rsplit(":", 1)[1])}, **ROOM):
        api.expect(page.locator("#trouble")).to_be_hidden(timeout=WAIT)
        reach(page, shown + 5)
        page.click("#answer-now")
        expect(page, "#run-chip", "finished")
        slide(page, 1)
        told = [event for event in trace(page) if event["event"] == "tick"]
        assert ticks(page) == len(told)
        count = sum(row["worker"] == "Alice" for event in told for row in event["rows"])
        assert page.inner_text(".column .state").startswith(f"{count} tokens")


def test_a_server_with_a_key(visit: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    with served(engine(model), tmp_path, key="open-sesame", **ROOM) as own:
        page = visit(url=f"{own.url}/", fails=True)
        for key in ("wrong", "open-sesame"):
            page.wait_for_selector("#key[open]")
            page.fill("#key-text", key)
            page.keyboard.press("Enter")
        begin(page)
        page.click("#pause")
        reach(page, 3)
        page.click("#stop")
        expect(page, "#run-chip", "stopped")


# -- text is data -----------------------------------------------------------------------------------------------------


def test_markup_stays_text(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    begin(page, problem=MARKUP, names=f"{NAME}, Ben")
    page.select_option("#say-to", "Ben")
    page.fill("#say-text", SAID)
    page.keyboard.press("Enter")
    expect(page, "#status", re.compile("Said to Ben"))
    page.click("#pause")
    reach(page, 8)
    page.click("#stop")
    expect(page, "#run-chip", "stopped")
    assert page.inner_text("#run-problem") == MARKUP
    assert page.locator(".column h3").first.inner_text() == NAME
    assert SAID in texts(page)[1]

    start, *rest = (TRACES / "hogwild.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in rest]
    for event in events:
        for row in event.get("rows", []) if event["event"] == "tick" else []:
            row["text"] = f"{MARKUP} "
    events[-1]["answer"] = MARKUP
    (tmp_path / "bad.jsonl").write_text("\n".join([start, *map(json.dumps, events)]))
    page.set_input_files("#file", tmp_path / "bad.jsonl")
    expect(page, "#run-chip", "trace")
    page.keyboard.press("End")
    expect(page, "#answer-text", MARKUP)
    assert texts(page)[0].count(MARKUP) > 50
    drawn(page)
    assert "hacked" not in page.title()
    assert page.locator("#run img, #run script, #run b:not(#remarks b)").count() == 0


def test_nothing_but_text_reaches_the_page() -> None:
    for path in PAGE.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text()
        )
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<script>|https?://", html)
    assert sum(path.stat().st_size for path in PAGE.iterdir() if path.is_file()) < 165_000
