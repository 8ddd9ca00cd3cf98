"""How the page shows async_reasoning, outline, branch and patch: recorded runs, in a real headless Chromium.

Covers the map of views against what the traces tell; attempts at one position, drawn one under the other; thoughts
beside the answer; an outline whose sections see each other; texts of which a part was read again. Not covered: runs
that go on (test_page.py), and what the programs do (test_branch.py and others).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest

from browser import TRACES, chromium, desk, drawn, expect, model, server, slide, texts, visit
from kvorum.store.traces import read
from test_trace_lengths import reckon

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'kvorum[test]'")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")

NAMES = ("async_reasoning", "outline", "branch", "patch")
BOXES = """
worker => Object.fromEntries([...document.querySelectorAll(`#map .row[data-worker='${worker}'] .segment`)].map(each => {
  const { left, right, top, bottom } = each.getBoundingClientRect();
  return [each.dataset.block, { left, right, top, bottom, text: each.innerText }];
}))
"""
SHOWN = """
Object.fromEntries([...document.querySelectorAll('#map .row')].map(row => [row.dataset.worker,
  [...row.querySelectorAll('.segment')].map(each => [each.dataset.block, Number(each.dataset.tokens)])]))
"""


def opened(visit: Callable[..., Any], name: str, **options: Any) -> Any:
    """The page with a recorded run, at its end."""
    page = visit(reduced_motion="reduce", **options)
    page.set_input_files("#file", TRACES / f"{name}.jsonl")
    expect(page, "#run-facts", re.compile(name))
    page.keyboard.press("End")
    drawn(page)
    return page


@pytest.mark.parametrize("name", NAMES)
def test_the_map_is_what_the_recorded_trace_tells(visit: Callable[..., Any], name: str) -> None:
    """Block for block; and on a telephone it stays within the window."""
    page, events = opened(visit, name), read(TRACES / f"{name}.jsonl")
    lengths = reckon(events)
    views = {event["worker"]: event["items"] for event in events if event["event"] == "view"}
    told: dict[str, list[list[Any]]] = {
        worker: [
            [name, (lengths[cast("int", number)] if hi is None else hi) - lo] for name, lo, hi, number, *_ in items
        ]
        for worker, items in views.items()
    }
    assert page.evaluate(SHOWN) == told
    for worker, items in told.items():
        placed = name == "branch" and worker == "Join"
        whole = sum(length for _, length in items) - (2 * 41 if placed else 0)
        assert int(page.inner_text(f"#map .row[data-worker='{worker}'] .total")) == whole
    end = events[-1]
    assert end["event"] == "end"
    assert page.inner_text("#meters [data-entry=decoded]").replace("\u202f", "") == str(end["ledger"]["decoded"])
    assert " ".join(page.inner_text("#answer-text").split()[-3:]) in " ".join(str(end["answer"]).split())
    page.set_viewport_size({"width": 360, "height": 740})
    slide(page, 0.8)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_attempts_at_one_position_are_drawn_one_under_the_other(visit: Callable[..., Any]) -> None:
    page = opened(visit, "branch")
    boxes = page.evaluate(BOXES, "Join")
    attempts = [boxes[name] for name in ("Alice", "Bob", "Carol")]
    assert len({round(each["left"], 1) for each in attempts}) == 1
    assert [each["text"] for each in attempts] == ["Alice", "Bob", "Carol"]
    assert [(a["bottom"] <= b["top"]) for a, b in pairwise(attempts)] == [True, True]
    assert boxes["prompt"]["right"] == pytest.approx(attempts[0]["left"], abs=0.1)
    assert boxes["Join"]["left"] == pytest.approx(max(each["right"] for each in attempts), abs=0.1)
    assert boxes["Join"]["top"] == boxes["prompt"]["top"] == attempts[0]["top"], "what stands alone has all of the row"
    assert boxes["Join"]["bottom"] > attempts[1]["bottom"]
    label = page.get_attribute("#map .row[data-worker=Join] .track", "aria-label")
    assert label == "Join sees, in order: prompt 79, Alice 41, beside it Bob 41, beside it Carol 41, Join 60"
    rows = page.locator("#map .row").evaluate_all("all => all.map(e => [e.offsetTop, e.offsetTop + e.offsetHeight])")
    assert all(before[1] <= after[0] for before, after in pairwise(rows))
    slide(page, 0)
    assert page.evaluate(BOXES, "Join") == {}
    assert page.evaluate("document.querySelector('#map .row[data-worker=Join] .track').offsetHeight") == 24


STACK = """
async spans => {
  const { Story } = await import('/page/story.js');
  const { ViewMap } = await import('/page/map.js');
  const story = new Story(), root = document.createElement('div');
  story.feed({event: 'start', workers: ['Ann'], task: {prompt: 'x'}});
  story.feed({event: 'view', worker: 'Ann', items: spans.map(([at, length], number) => [`${number}`, 0, length, number,
    length, ...(at === null ? [] : [at])])});
  document.body.append(root);
  new ViewMap(root).render(story, story.now);
  const found = [...root.querySelectorAll('.segment')].map(each => parseInt(each.style.top) / 13);
  root.remove();
  return found;
}
"""


@pytest.mark.parametrize(
    ("spans", "levels"),
    [
        ([(None, 5), (None, 5), (None, 0), (None, 2)], [0, 0, 0, 0]),
        ([(None, 5), (5, 3), (5, 9), (None, 4)], [0, 0, 1, 0]),
        ([(None, 5), (5, 3), (8, 3), (5, 9), (14, 1)], [0, 0, 0, 1, 0]),  # an attempt of two blocks beside one of one
        ([(None, 9), (3, 3), (5, 9), (12, 4)], [0, 1, 2, 0]),
        ([(0, 4), (0, 0), (0, 4), (2, 4)], [0, 0, 1, 2]),
        ([(5, 5), (0, 5), (0, 6)], [1, 0, 1]),
    ],
)
def test_nothing_is_drawn_over_anything_else(visit: Callable[..., Any], spans: list[Any], levels: list[int]) -> None:
    found = visit().evaluate(STACK, spans)
    boxes = []
    reach = 0
    for (at, length), level in zip(spans, found, strict=True):
        start = reach if at is None else at
        reach = max(reach, start + length)
        boxes.append((start, start + length, level))
    for at, (lo, hi, level) in enumerate(boxes):
        assert not [1 for a, b, other in boxes[:at] if other == level and a < hi and lo < b]
    if spans[0][0] is None:
        assert found == levels


def test_thoughts_stand_beside_the_answer_as_both_are_written(visit: Callable[..., Any]) -> None:
    page = opened(visit, "async_reasoning")
    thoughts, answer = texts(page)
    for share in (0.1, 0.4, 0.6, 0.8):
        slide(page, share)
        parts = texts(page)
        assert thoughts.startswith(parts[0].rstrip())
        assert answer.startswith(parts[1].rstrip())
        assert bool(parts[0]), share
        assert bool(parts[1]) == (share > 0.2), "the answer begins while the thinking goes on"
        assert len(parts[0]) < len(thoughts)
    boxes = page.locator(".column").evaluate_all("all => all.map(each => [each.offsetTop, each.offsetLeft])")
    assert boxes[0][0] == boxes[1][0]
    assert boxes[0][1] < boxes[1][1]
    sees = page.get_attribute("#map .row[data-worker=Writer] .track", "aria-label")
    assert re.fullmatch(r"Writer sees, in order: input 30, opening 19, Thinker \d+, split 13, Writer \d+", sees)
    page.keyboard.press("End")
    drawn(page)
    probes = [event for event in read(TRACES / "async_reasoning.jsonl") if event["event"] == "note"]
    asked = [dict(event) for event in probes if dict(event)["kind"] == "decided"]
    told = page.locator("#acts > li p").all_inner_texts()
    assert len(asked) > 2
    assert [line.split(", ")[1] for line in told] == [f"enough: {one['answer']}" for one in asked]
    assert page.locator("#remarks li").count() > len(asked)


def test_an_outline_and_its_sections_that_see_each_other(visit: Callable[..., Any]) -> None:
    page = opened(visit, "outline")
    assert page.locator(".column h3").all_inner_texts() == ["Outline", "Section 1", "Section 2", "Section 3"]
    seen = page.evaluate(SHOWN)
    assert [name for name, _ in seen["Section 2"]] == ["prompt", "outline", "Section 1", "Section 3", "Section 2"]
    assert page.inner_text("#acts > li p").endswith(", outline")
    slide(page, 0.3)
    assert [bool(part.strip()) for part in texts(page)] == [True, False, False, False]
    slide(page, 0.8)
    assert [bool(part.strip()) for part in texts(page)] == [True] * 4


def test_texts_of_which_a_part_was_read_again(visit: Callable[..., Any]) -> None:
    page = opened(visit, "patch")
    assert [name for name, _ in page.evaluate(SHOWN)["Alice"]] == ["opening", "minutes", "patched letter", "Alice"]
    assert page.inner_text("#acts > li").split() == ["Tick", "0,", "patched", "moved", "24", "again", "8"]
    expect(page, "#answer-how", "found by the workers")
