"""For tests of the page: a real server, one real headless Chromium for a process's tests, and hands to work it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvorum import Engine
from serving import Served, served
from tiny_folder import tiny_folder

TRACES = Path(__file__).parent.parent / "docs" / "programs"
PAGE = Path(__file__).parent.parent / "src" / "kvorum" / "serve" / "page"
WAIT = 60_000
"""Milliseconds that anything may take on a busy machine."""
ENDLESS = "100000"
"""Ticks that no machine gets through while a test looks on: minutes, on any."""
ROOM: dict[str, Any] = {"ticks": int(ENDLESS)}
ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREEN = {"width": 1280, "height": 900}


def chromium() -> str | None:
    """Where Chromium is, if it is."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model with positions for an endless run."""
    return tiny_folder(tmp_path_factory.mktemp("tiny"), positions=1_000_000)


def engine(model: Path) -> Engine:
    """As `kvorum serve` loads it."""
    return Engine.load(str(model), kv_tokens=1_000_000)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on a thread of this process, which starts in half a second; `kvorum serve` takes six, all imports."""
    with served(engine(model), tmp_path_factory.mktemp("store"), **ROOM) as up:
        yield up


class Window:
    """A page of the browser, which one test after another has for its own."""

    def __init__(self, page: Any) -> None:
        self.page, self.url = page, ""
        self.troubles: list[str] = []
        """What went wrong: errors, refusals of the CSP, and requests that leave the server."""
        said = self.troubles.append
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: said(f"error: {error}"))
        page.on("console", lambda message: said(message.text) if message.type in ("error", "warning") else None)
        page.on("request", lambda each: None if each.url.startswith((self.url, "blob:", "about:")) else said(each.url))

    def open(self, url: str, path: str, viewport: dict[str, int] = SCREEN, **media: str) -> Any:
        """Show a page; ``media``: what the person's system asks for."""
        self.url = url
        self.troubles.clear()
        self.page.set_viewport_size(viewport)
        self.page.emulate_media(**{"color_scheme": "light", "reduced_motion": "no-preference", **media})
        self.page.goto(url + path)
        return self.page

    def leave(self) -> list[str]:
        """Leave it as if nobody had been there; what went wrong."""
        self.page.evaluate("localStorage.clear(); sessionStorage.clear()")
        self.page.unroute_all()
        self.page.goto("about:blank")
        return list(self.troubles)


class Desk:
    """The one Chromium of this process, and its windows that no test has."""

    def __init__(self, playwright: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.browser = playwright.chromium.launch(executable_path=chromium(), args=ARGS)
        self.context = self.browser.new_context()
        self.free: list[Window] = []

    @contextmanager
    def here(self) -> Iterator[None]:
        """Playwright's loop as the one that runs in this thread, which other tests must not find there."""
        asyncio._set_running_loop(self.loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def window(self) -> Window:
        return self.free.pop() if self.free else Window(self.context.new_page())


@pytest.fixture(scope="session")
def desk() -> Iterator[Desk]:
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    made = Desk(playwright)
    asyncio._set_running_loop(None)
    yield made
    with made.here():
        made.browser.close()
        playwright.stop()


@pytest.fixture
def visit(desk: Desk, server: Served) -> Iterator[Callable[..., Any]]:
    """Open the page in a window of its own; at the end nothing may have gone wrong in it, but where ``fails``."""
    opened: list[tuple[Window, bool]] = []

    def open_page(path: str = "", *, url: str = f"{server.url}/", fails: bool = False, **options: Any) -> Any:
        opened.append((desk.window(), fails))
        return opened[-1][0].open(url, path, **options)

    with desk.here():
        yield open_page
        troubles = [trouble for window, fails in opened for trouble in window.leave() if not fails]
        desk.free += [window for window, _ in opened]
    assert troubles == []


def begin(page: Any, problem: str = "Count to ten.", **fields: str) -> None:
    """Fill the form in and start a run that waits before its first tick, and does not end until it is made to."""
    ready(page)
    page.fill("#problem", problem)
    page.locator("summary", has_text="Names").click()
    page.check("#paused")
    for name, value in {"program": "hogwild", "workers": "2", "budget": ENDLESS, **fields}.items():
        page.select_option(f"#{name}", value) if name == "program" else page.fill(f"#{name}", value)
    stay(page)
    page.click("#start")
    expect(page, "#run-chip", "paused")


def stay(page: Any) -> None:
    """Let no worker of hogwild leave: of 257 tokens that a random model picks from, one is the end."""
    if page.locator("#param-suppress_end").count():
        page.locator("#params-box summary").click()
        page.check("#param-suppress_end")


def expect(page: Any, selector: str, text: str | re.Pattern[str]) -> None:
    from playwright.sync_api import expect as expected

    expected(page.locator(selector).first).to_have_text(text, timeout=WAIT)


def until(page: Any, true: str) -> None:
    """Wait for a JavaScript expression; asked from outside, since the page's CSP forbids to evaluate text inside."""
    end = time.monotonic() + WAIT / 1000
    while not page.evaluate(true):
        assert time.monotonic() < end, f"{true} did not come true."
        page.wait_for_timeout(30)


def ready(page: Any) -> None:
    """Wait until the form knows the server's models and programs."""
    until(page, "document.querySelector('#program').options.length > 0")


def ticks(page: Any) -> int:
    found = re.match(r"tick (\d+)", page.inner_text("#time-label"))
    assert found is not None
    return int(found[1])


def reach(page: Any, count: int) -> None:
    until(page, f"parseInt(document.querySelector('#time-label').textContent.slice(5)) >= {count}")


def drawn(page: Any) -> None:
    """Wait until what was done to the page is drawn, and what that began."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")


def settled(page: Any) -> None:
    """Wait until nothing on the page has changed for a third of a second: on a busy machine frames come late."""
    page.evaluate(
        "new Promise(done => { let over = setTimeout(done, 300);"
        "const watch = new MutationObserver(() => { clearTimeout(over); over = setTimeout(done, 300); });"
        "watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true }); })"
    )
    drawn(page)


def still(page: Any) -> None:
    """Wait until a run that was paused does nothing any more and the page shows all that it did.

    The tick that was under way is over when one that was asked for later is.
    """
    identity = page.url.rsplit("/", 1)[1]
    done = page.evaluate(
        "async id => { const { model } = await (await fetch('/health')).json();"
        "await fetch('/v1/completions', { method: 'POST', headers: { 'Content-Type': 'application/json' },"
        "body: JSON.stringify({ model, prompt: 'a', max_tokens: 1 }) });"
        "return (await (await fetch(`/v1/runs/${id}`)).json()).ticks; }",
        identity,
    )
    reach(page, done)
    drawn(page)


def trace(page: Any) -> list[dict[str, Any]]:
    """The trace of the run that the page shows, from the server."""
    identity = page.url.rsplit("/", 1)[1]
    reply = page.evaluate("async id => (await fetch(`/v1/runs/${id}/trace`)).text()", identity)
    return [json.loads(line) for line in reply.splitlines()]


def texts(page: Any) -> list[str]:
    return list(page.evaluate("[...document.querySelectorAll('.column .text')].map(column => column.innerText)"))


def slide(page: Any, share: float) -> None:
    page.evaluate(
        "share => { const slider = document.querySelector('#slider'); slider.value = Math.round(slider.max * share);"
        "slider.dispatchEvent(new Event('input')); }",
        share,
    )
    drawn(page)
