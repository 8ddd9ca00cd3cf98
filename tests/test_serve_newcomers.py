"""Between two ticks: a prompt that came while one was computed is in the very next, and what one has drawn is sent
before the next begins. A backend without a model waits in each tick until the test lets it go on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Engine
from kvorum.backends.backend import Done, Work
from kvorum.backends.fake import FakeBackend
from serving import Served, served

VOCAB = len(toy_engine.tokenizer())
ASKED: dict[str, Any] = {"model": "toy", "max_tokens": 12, "seed": 1, "logit_bias": {VOCAB - 1: -100}, "stream": True}


class Gated(FakeBackend):
    """``begun`` is released as a tick begins, which goes on as ``go`` is; ``rows`` of each so far."""

    def __init__(self) -> None:
        super().__init__(VOCAB, ends=[VOCAB - 1])
        self.begun, self.go, self.open = threading.Semaphore(0), threading.Semaphore(0), False
        self.rows: list[int] = []

    def forward(self, work: Work) -> Done:
        self.rows.append(len(work.draws()))
        if not self.open:
            self.begun.release()
            assert self.go.acquire(timeout=60)
        return super().forward(work)

    def tick(self) -> None:
        """Let the one that waits go on, until the next has begun."""
        self.go.release()
        assert self.begun.acquire(timeout=60)


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[Served, Gated]]:
    backend = Gated()
    with served(Engine(backend, toy_engine.tokenizer(), name="toy"), tmp_path) as up:
        yield up, backend


def asked(server: Served, prompt: str, said: list[str], more: threading.Semaphore) -> threading.Thread:
    """A stream; ``more`` is released with each text that comes."""

    def read() -> None:
        with server.http.stream("POST", "/v1/completions", json={**ASKED, "prompt": prompt}) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    said.append(line)
                    more.release()

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_what_a_tick_has_drawn_is_sent_before_the_next_is_over(gated: tuple[Served, Gated]) -> None:
    server, backend = gated
    said, more = list[str](), threading.Semaphore(0)
    reading = asked(server, "Once", said, more)
    assert backend.begun.acquire(timeout=60)  # the prompt's
    for count in range(1, 5):
        backend.tick()
        assert more.acquire(timeout=60)  # while a tick waits
        assert len(said) == count
    backend.open = True
    backend.go.release()
    reading.join(60)


def test_who_comes_while_a_tick_is_computed_is_in_the_next(
    gated: tuple[Served, Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, backend = gated
    first = asked(server, "Once", [], threading.Semaphore(0))
    assert backend.begun.acquire(timeout=60)
    for _ in range(3):
        backend.tick()
    called, call = threading.Event(), server.service.thread.call

    async def seen(*args: Any, **kwargs: Any) -> Any:
        called.set()
        return await call(*args, **kwargs)

    monkeypatch.setattr(server.service.thread, "call", seen)
    second = asked(server, "Twice", [], threading.Semaphore(0))
    assert called.wait(60)
    assert server.http.get("/page/page.js").status_code  # by the same loop, so the call is on its way
    backend.tick()
    assert backend.rows[-2:] == [1, 2]
    backend.open = True
    backend.go.release()
    first.join(60)
    second.join(60)
    assert server.free()
