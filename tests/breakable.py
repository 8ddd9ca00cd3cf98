"""A backend without a model that fails as processes do which hold one: it dies, or stands still."""

from __future__ import annotations

import threading

import toy_engine
from kvorum import Engine
from kvorum.backends.backend import Done, Work
from kvorum.backends.fake import FakeBackend
from kvorum.errors import WorkersLost

WHY = "A worker process has died; its engine has ended, load it anew."


class Breakable(FakeBackend):
    """Dies in tick number ``dies``. In number ``stands`` it stands still until it is closed."""

    def __init__(self, dies: int | None = None, stands: int | None = None) -> None:
        super().__init__(toy_engine.VOCAB, kv_tokens=8192, page_size=4, ends=[toy_engine.VOCAB - 1])
        self.dies, self.stands, self.ticks = dies, stands, 0
        self.lost: str | None = None
        self.still, self.closed = threading.Event(), threading.Event()

    def forward(self, work: Work) -> Done:
        self.ticks += 1
        if self.ticks == self.stands:
            self.still.set()
            self.closed.wait()
        if self.ticks == self.dies or self.closed.is_set():
            self.lost = WHY
        if self.lost is not None:
            raise WorkersLost(self.lost)
        return super().forward(work)

    def trouble(self) -> str | None:
        return self.lost

    def close(self) -> None:
        self.closed.set()


def breakable(backend: Breakable) -> Engine:
    """With the toy's tokenizer."""
    return Engine(backend, toy_engine.tokenizer(), name="toy")
