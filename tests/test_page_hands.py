"""The page and its people: the keyboard alone, names for those who do not see, narrow, dark and calm screens, motion.

In a real headless Chromium against the real server on a tiny random model, and on the traces of docs/programs. Not
covered: runs (test_page.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser import (
    ENDLESS,
    TRACES,
    begin,
    chromium,
    desk,
    drawn,
    expect,
    model,
    reach,
    ready,
    server,
    slide,
    stay,
    still,
    ticks,
    visit,
)

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'kvorum[test]'")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")


# -- hands and eyes ---------------------------------------------------------------------------------------------------


def test_the_keyboard_is_enough(visit: Callable[..., Any]) -> None:
    page = visit()
    ready(page)
    assert page.evaluate("document.activeElement.id") == "problem"
    page.select_option("#program", "hogwild")
    page.fill("#workers", "2")
    page.fill("#budget", ENDLESS)
    stay(page)
    page.focus("#problem")
    page.keyboard.type("Name three rivers. 1i.?")
    page.keyboard.press("Control+Enter")
    expect(page, "#run-chip", "running")
    page.keyboard.press("Space")
    expect(page, "#run-chip", "paused")
    still(page)
    before = ticks(page)
    page.keyboard.press(".")
    reach(page, before + 1)
    page.keyboard.press("i")
    assert page.evaluate("document.activeElement.id") == "say-text"
    page.keyboard.type("i.aX")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    assert page.evaluate("document.activeElement.getAttribute('aria-labelledby')") == "worker-1"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press(".")
    reach(page, before + 2)
    page.keyboard.press("ArrowLeft")
    drawn(page)
    assert ticks(page) == before + 1
    page.focus("#main")  # in a column the key goes to its beginning
    page.keyboard.press("Home")
    drawn(page)
    assert ticks(page) == 0
    page.keyboard.press("End")
    page.keyboard.press("?")
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    page.keyboard.press("X")
    drawn(page)
    expect(page, "#run-chip", "paused")
    page.keyboard.press("Tab")
    page.click("#keys-button")
    page.check("#keys-on")
    page.keyboard.press("Escape")
    page.keyboard.press("X")
    expect(page, "#run-chip", "stopped")


def test_everything_to_press_has_a_name(visit: Callable[..., Any]) -> None:
    page = visit()
    page.set_input_files("#file", TRACES / "hogwild.jsonl")
    expect(page, "#run-chip", "trace")
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input:not([hidden]), select, textarea, a')].filter(each =>"
        "!each.textContent.trim() && !each.getAttribute('aria-label') && !each.labels?.length).map(each => each.id)"
    )
    assert nameless == []


def test_the_form_is_what_the_programs_declare(visit: Callable[..., Any]) -> None:
    """Each parameter that the network may give has a field with its choices or bounds, and says what it means."""
    page = visit()
    ready(page)
    page.locator("#params-box summary").click()
    for program in page.evaluate("async () => (await (await fetch('/v1/programs')).json()).data"):
        page.select_option("#program", program["name"])
        assert page.get_attribute("#workers", "max") == str(min(16, program["most_workers"]))
        shown = page.locator("#params .param")
        assert shown.locator("label > span").all_inner_texts() == [param["name"] for param in program["params"]]
        for at, param in enumerate(program["params"]):
            field, hint = page.locator(f"#param-{param['name']}"), shown.nth(at).locator(".hint")
            assert hint.inner_text() == param["help"] != ""
            assert field.get_attribute("aria-describedby") == hint.get_attribute("id")
            if param["choices"]:
                words = field.locator("option").all_inner_texts()
                assert words[0] == (param["default"] or "none")
                assert {*words} - {"none"} == {*param["choices"]} - {"", "none"}
            for bound, name in ((param["low"], "min"), (param["high"], "max")):
                if bound is not None and field.get_attribute("type") == "number":
                    assert float(field.get_attribute(name) or "nan") == bound


def test_a_refused_parameter_is_said_beside_the_button(visit: Callable[..., Any]) -> None:
    page = visit(fails=True)  # the browser has a word of its own on the refusal
    ready(page)
    page.fill("#problem", "Count.")
    page.select_option("#program", "tree")
    page.locator("#params-box summary").click()
    page.select_option("#param-leaf", "hogwild")
    page.fill("#param-leaf_params", '{"layout": "sideways"}')
    page.click("#start")
    expect(page, "#compose-error", re.compile("sideways"))


def test_the_live_region_is_quiet(visit: Callable[..., Any]) -> None:
    page = visit()
    begin(page, budget="60")
    page.evaluate(
        "window.said = 0; new MutationObserver(() => { window.said += 1; })"
        ".observe(document.querySelector('#status'), {childList: true, characterData: true, subtree: true})"
    )
    page.click("#pause")
    expect(page, "#run-chip", "finished")
    assert 1 <= page.evaluate("window.said") <= 4
    assert page.locator("[aria-live]:not(#status)").count() == 0


def test_any_screen(visit: Callable[..., Any]) -> None:
    page = visit(viewport={"width": 360, "height": 740})
    ready(page)

    def fits() -> None:
        for width in (360, 390, 768, 820, 1280, 1440):
            page.set_viewport_size({"width": width, "height": 740})
            drawn(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width

    for summary in page.locator("#compose summary").all():
        summary.click()
    fits()
    page.click("nav a[data-page=documents]")
    page.click("#documents-example")
    fits()
    assert page.evaluate(
        "[...document.querySelectorAll('#documents :is(textarea, button, input, label)')]"
        ".every(each => each.getBoundingClientRect().right <= innerWidth + 1)"
    )
    page.click("nav a[data-page=runs]")
    expect(page, "#runs-title", "Runs")
    fits()
    for name in ("hogwild", "network", "tree"):
        page.set_input_files("#file", TRACES / f"{name}.jsonl")
        expect(page, "#run-facts", re.compile(name))
        slide(page, 0.7)
        fits()
        assert page.evaluate("[...document.querySelectorAll('.column')].every(c => c.offsetWidth <= innerWidth)")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate("['backgroundColor', 'color'].map(n => getComputedStyle(document.documentElement)[n])")
        light = [sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 765 for colour in colours]
        assert (light[0] > 0.9 and light[1] < 0.2) if scheme == "light" else (light[0] < 0.15 and light[1] > 0.8)


def test_a_run_is_steered_at_phone_width(visit: Callable[..., Any]) -> None:
    page = visit(viewport={"width": 360, "height": 740})
    begin(page)
    outside = (
        "[...document.querySelectorAll('#transport button, #transport select, #transport input')]"
        ".filter(e => e.offsetWidth && e.getBoundingClientRect().right > innerWidth).map(e => e.id || e.textContent)"
    )
    assert page.evaluate(outside) == []
    page.keyboard.press("Shift+X")
    expect(page, "#run-chip", "stopped")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_moves_forks_and_gaps_are_animated_unless_calm_is_asked_for(visit: Callable[..., Any], motion: str) -> None:
    page = visit(reduced_motion=motion)
    page.evaluate(
        "window.flown = []; const plain = Element.prototype.animate;"
        "Element.prototype.animate = function (...given) { window.flown.push(this.className);"
        "return plain.apply(this, given); }; 0"
    )
    seen = set()
    for name, step in (("hogwild", 1), ("tree", 1), ("thread", 1)):
        page.set_input_files("#file", TRACES / f"{name}.jsonl")
        expect(page, "#run-facts", re.compile(name))
        drawn(page)
        stops = [
            int(at)
            for at in page.evaluate(
                "import('/page/main.js').then(({stage}) => stage.story.moments.filter(m => m.lane).map(m => m.stop))"
            )
        ]
        for stop in stops[:6] + stops[-4:]:
            page.evaluate("at => import('/page/main.js').then(({stage}) => stage.timeline.seek(at))", stop - step)
            drawn(page)
            page.keyboard.press("ArrowRight")
            drawn(page)
        seen |= {part for each in page.evaluate("window.flown") for part in each.split()}
    assert page.locator("#map .segment.gap:not(.leaving)").count() == 1
    if motion == "reduce":
        assert seen == set()
        assert page.evaluate("document.getAnimations().length") == 0
    else:
        assert {"ghost", "segment", "other", "own", "gap"} <= seen
