"""For tests of the page: the real server in a process of its own, a real headless Chromium, and hands to work it."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny_folder import tiny_folder

TRACES = Path(__file__).parent.parent / "docs" / "programs"
PAGE = Path(__file__).parent.parent / "src" / "kvorum" / "serve" / "page"
WAIT = 60_000
"""Milliseconds that anything may take on a busy machine."""
ENDLESS = "100000"
"""Ticks that no machine gets through while a test looks on: minutes, on any."""
ROOM = ["--max-ticks", ENDLESS, "--kv-tokens", "1000000"]
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


def chromium() -> str | None:
    """Where Chromium is, if it is."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


class Server:
    """`kvorum serve` on the tiny random model."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder, self.options, self.port = folder, options, port
        self.model = folder / "tiny"
        if not self.model.exists():
            self.model.mkdir(parents=True)
            tiny_folder(self.model, positions=1_000_000)
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it, on the same port and store as before, and wait until it listens."""
        command = [sys.executable, "-m", "kvorum.cli", "serve", "--model", str(self.model), "--port", str(self.port)]
        store = ["--store", str(self.folder / "store")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *ROOM, *store, *self.options], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        assert self.process.stdout is not None
        end = time.monotonic() + 240
        while time.monotonic() < end and self.process.poll() is None:
            if not select.select([self.process.stdout], [], [], 1)[0]:
                continue
            if found := re.search(r"http://[^/\s]+:(\d+)/", self.process.stdout.readline()):
                self.port, self.url = int(found[1]), found[0]
                return
        self.kill()
        raise AssertionError(f"The server did not start:\n{(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """End it at once, without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def watched(page: Any, url: str) -> list[str]:
    """What goes wrong in a page from now on: errors, refusals of the CSP, and requests that leave the server."""
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda asked: None if asked.url.startswith((url, "blob:")) else troubles.append(asked.url))
    return troubles


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=ARGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("serve"))
    yield running
    running.kill()


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Open the page in a window of its own; at the end nothing may have gone wrong in it."""
    opened: list[tuple[Any, list[str]]] = []

    def open_page(path: str = "", *, url: str = server.url, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        page = context.new_page()
        page.set_default_timeout(WAIT)
        opened.append((context, watched(page, url)))
        page.goto(url + path)
        return page

    yield open_page
    for context, troubles in opened:
        context.close()
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
