"""The page's ways to find and to keep: search, a link to a tick, two runs side by side, an answer as a file, formulas,
calls that wait for a person, a worker that repeats itself, the heat map of attention; and axe-core on every part, at
three widths, light and dark.

In a real headless Chromium against the real server on a tiny random model. Not covered: runs (test_page.py), the
keyboard (test_page_hands.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import (
    ROOM,
    TRACES,
    begin,
    chromium,
    desk,
    drawn,
    engine,
    expect,
    model,
    reach,
    ready,
    settled,
    slide,
    ticks,
    trace,
    until,
    visit,
)
from kvorum import Run, program
from kvorum.harness.tools.approval import approved
from serving import Served, served

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'kvorum[test]'")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")

FORMULAS = r"""
async () => {
  const { markdown } = await import('/page/markdown.js');
  const root = document.createElement('div');
  root.className = 'written';
  root.append(...markdown(String.raw`It is \(a^2\) or $b_1$, and \(\href{https://example.org}{x}\) and \(\frac{\).

\[
\sum_{i=1}^n \frac{i}{2}
\]
`));
  document.querySelector('#main').append(root);
}
"""


@program("asks", "asks a person twice", workers=1)
async def asks(run: Run) -> str:
    words = [await approved(run, name, '{"path": "<b>a</b>"}') for name in ("erase", "print it")]
    return " ".join(str(word) for word in words)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(engine(model), tmp_path_factory.mktemp("store"), programs=[asks], **ROOM) as up:
        yield up


def short(page: Any, problem: str, ticks: int = 12) -> str:
    """Run a team of two for so many ticks, show the run, and give its id."""
    body = {
        "problem": problem,
        "program": "hogwild",
        "workers": 2,
        "budget": {"ticks": ticks},
        "params": {"suppress_end": True},
        "attention": 4,
    }
    run = page.evaluate(
        "async body => (await (await fetch('/v1/runs', { method: 'POST', body: JSON.stringify(body),"
        "headers: { 'Content-Type': 'application/json' } })).json()).id",
        body,
    )
    page.goto(page.url.split("#")[0] + f"#/run/{run}")
    expect(page, "#run-problem", problem)
    expect(page, "#run-chip", "finished")
    return str(run)


def test_what_was_written_is_found_where_and_when_it_was_written(visit: Callable[..., Any]) -> None:
    page = visit()
    page.set_input_files("#file", TRACES / "hogwild.jsonl")
    expect(page, "#run-chip", "trace")
    assert ticks(page) == 0
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search-text"
    page.keyboard.type("the")
    drawn(page)
    first, count = map(int, page.inner_text("#search-count").split(" of "))
    assert first == 1
    assert count > 3
    at = ticks(page)
    assert at > 0, "the moment at which it was written is shown"
    assert "the" in page.inner_text(".column .origin").lower()
    for _ in range(count - 1):
        page.keyboard.press("Enter")
    drawn(page)
    assert page.inner_text("#search-count") == f"{count} of {count}"
    assert ticks(page) > at
    page.keyboard.press("Enter")
    assert page.inner_text("#search-count") == f"1 of {count}"
    page.click("#search-back")
    assert page.inner_text("#search-count") == f"{count} of {count}"
    page.fill("#search-text", "no such words anywhere")
    expect(page, "#search-count", "not found")
    assert page.locator("#search-on").is_disabled()


def test_the_address_of_a_tick_shows_that_tick(visit: Callable[..., Any]) -> None:
    page = visit()
    run = short(page, "Count to ten.")
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    drawn(page)
    at = ticks(page)
    assert at > 1
    page.click("#link")
    until(page, f"location.hash === '#/run/{run}/{at}'")
    shown = page.inner_text("#columns")
    other = visit(f"#/run/{run}/{at}")
    reach(other, at)
    drawn(other)
    assert ticks(other) == at
    assert other.inner_text("#columns") == shown
    late = visit(f"#/run/{run}/99999")
    expect(late, "#run-chip", "finished")
    expect(late, "#time-label", re.compile(r"tick (\d+) of \1,"))
    nowhere = visit("#/run/run_none/3", fails=True)  # the browser has a word of its own on the refusal
    expect(nowhere, "#trouble", "There is no run 'run_none'.")
    api.expect(nowhere.locator("#run")).to_be_hidden()
    api.expect(nowhere.locator("#runs-list li", has_text="Count to ten.").first).to_be_visible()


def test_two_runs_stand_side_by_side_at_one_tick(visit: Callable[..., Any]) -> None:
    page = visit()
    first, second = short(page, "Count to ten."), short(page, "Name a river.", 20)
    page.keyboard.press("r")
    page.wait_for_selector("#runs-list li")
    assert page.locator("#runs-compare").is_disabled()
    for run in (first, second):
        page.check(f"#runs-list input[value='{run}']")
    page.click("#runs-compare")
    until(page, "document.querySelectorAll('#compare-sides > section').length === 2")
    assert page.locator("#compare-other").is_visible()
    assert 12 < int(page.get_attribute("#compare-slider", "max")) <= 20
    expect(page, "#compare-label", "at the end")
    assert [side.split("\n")[0] for side in page.locator("#compare-sides .problem").all_inner_texts()] == [
        "Count to ten.",
        "Name a river.",
    ]
    whole = page.locator("#compare-sides .columns").all_inner_texts()
    page.evaluate(
        "() => { const slider = document.querySelector('#compare-slider');"
        "slider.value = 3; slider.dispatchEvent(new Event('input')); }"
    )
    expect(page, "#compare-label", "at tick 3")
    part = page.locator("#compare-sides .columns").all_inner_texts()
    assert all(len(now) < len(then) for now, then in zip(part, whole, strict=True))
    cells = page.locator("#compare-sides [data-entry=ticks]").all_inner_texts()
    assert [cell.split(" ")[0] for cell in cells] == ["3", "3"]
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))


def test_a_call_waits_for_a_persons_word(visit: Callable[..., Any]) -> None:
    page = visit()
    ready(page)
    page.fill("#problem", "x")
    page.select_option("#program", "asks")
    page.click("#start")
    page.wait_for_selector("#approvals li")
    assert "erase" in page.inner_text("#approvals")
    assert '{"path": "<b>a</b>"}' in page.inner_text("#approvals")
    page.click("#approvals button:text('Refuse')")
    until(page, "document.querySelector('#approvals').textContent.includes('print it')")
    page.click("#approvals button:text('Approve')")
    expect(page, "#answer-text", "False True")
    assert not page.locator("#approvals").is_visible()
    told = page.evaluate("[...document.querySelectorAll('#remarks li')].map(each => each.textContent)")
    assert any("erase was refused" in line for line in told)
    assert any("print it was approved" in line for line in told)
    with page.expect_download() as waiting:
        page.click("#answer-save")
    saved = Path(waiting.value.path()).read_text()
    assert saved.startswith("> x\n\nFalse True\n\n---\nasks · 1 worker")


def test_formulas_are_mathml_and_what_is_no_formula_stays_as_it_was_written(visit: Callable[..., Any]) -> None:
    page = visit()
    ready(page)
    page.evaluate(FORMULAS)
    until(page, "document.querySelectorAll('#main .written math').length >= 3")
    drawn(page)
    assert page.locator(".math.display math mfrac").count() == 1
    assert page.locator(".written a").count() == 0
    assert page.locator(".written code.formula").all_inner_texts()[-1] == r"\frac{"


def test_a_worker_that_repeats_itself_is_shown_with_a_way_to_stop_it(visit: Callable[..., Any]) -> None:
    page = visit()
    begin(page, names="Ann, Ben")
    page.wait_for_selector(".column h3")
    feed = "async event => { const { stage } = await import('/page/main.js'); stage.feed(event); }"
    page.evaluate(feed, {"event": "note", "kind": "loop", "worker": "Ann", "since": 0, "period": 3})
    expect(page, ".column .loop span", "says the same again and again: looping since tick 0")
    page.click(".column .loop button")
    expect(page, "#status", "Ann is asked to stop.")
    page.click("#pause")
    until(page, "document.querySelector('.column .state').textContent.includes('has left')")
    assert not page.locator(".column .loop button").first.is_visible()
    page.click("#stop")
    expect(page, "#run-chip", "stopped")


SHOWN = (
    "() => [...document.querySelectorAll('#attention-table tbody tr')].map(row =>"
    "[row.cells[0].textContent, [...row.querySelectorAll('td')].map(cell => Number(cell.dataset.share))])"
)


def test_the_heat_map_shows_the_traces_numbers(visit: Callable[..., Any]) -> None:
    page = visit()
    ready(page)
    page.locator("summary", has_text="Names").click()
    page.check("#attention-on")
    page.locator("summary", has_text="Names").click()
    begin(page, names="Ann, Ben", budget="20")
    assert page.locator("#attention").is_hidden()
    page.click("#pause")
    expect(page, "#run-chip", "finished")
    drawn(page)
    told = [event for event in trace(page) if event["event"] == "attention"]
    assert [event["n"] % 4 for event in told] == [0] * len(told)

    def means(events: list[dict[str, Any]]) -> list[Any]:
        found = []
        for name in ("Ann", "Ben"):
            rows = [row["shares"] for event in events for row in event["rows"] if row["worker"] == name]
            layers = [layer for shares in rows for layer in shares]
            if layers:
                mean = [sum(column) / len(layers) for column in zip(*layers, strict=True)]
                found.append([name, pytest.approx(mean, abs=2e-5)])
        return found

    heads = page.locator("#attention-table thead th").all_inner_texts()
    assert heads == ["attends to", "nobody", "Ann", "Ben"]
    assert page.evaluate(SHOWN) == means(told)
    assert f"mean of {len(told)} ticks" in page.inner_text("#attention-note")
    page.select_option("#attention-span", "tick")
    drawn(page)
    assert page.evaluate(SHOWN) == means(told[-1:])
    slide(page, 0.5)
    upto = [event for event in told if event["n"] < ticks(page)]
    assert 0 < len(upto) < len(told)
    assert page.evaluate(SHOWN) == means(upto[-1:])
    assert f"tick {upto[-1]['n'] + 1}:" in page.inner_text("#attention-note")
    page.select_option("#attention-span", "run")
    drawn(page)
    assert page.evaluate(SHOWN) == means(upto)


SCREENS = [(1440, "light"), (390, "dark"), (1440, "dark"), (820, "light"), (820, "dark"), (390, "light")]


@pytest.mark.parametrize("screens", [SCREENS[:2], pytest.param(SCREENS[2:], marks=pytest.mark.slow)])
def test_axe_finds_nothing(visit: Callable[..., Any], screens: list[tuple[int, str]]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = visit(reduced_motion="reduce")

    def look(part: str) -> None:
        if page.evaluate("typeof axe") == "undefined":  # half a megabyte
            page.evaluate(axe.axe_script)
        for width, scheme in screens:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            settled(page)
            found = page.evaluate("async () => (await axe.run({resultTypes: ['violations']})).violations")
            bad = [(part, width, scheme, each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]
            assert bad == []

    ready(page)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    look("new")
    page.click("#keys-button")
    look("keys")
    page.keyboard.press("Escape")
    page.keyboard.press("q")
    look("documents")
    run = short(page, "Count to ten.")
    look("run")
    page.keyboard.press("r")
    page.wait_for_selector("#runs-list li")
    look("runs")
    page.goto(page.url.split("#")[0] + f"#/compare/{run}/{run}")
    until(page, "document.querySelectorAll('#compare-sides > section').length === 2")
    look("compare")
    for name in ("hogwild", "branch"):
        page.set_input_files("#file", TRACES / f"{name}.jsonl")
        expect(page, "#run-facts", re.compile(name))
        page.keyboard.press("Home")
        look(f"{name}, before its first moment")
        page.keyboard.press("End")
        look(name)
