"""Several machines ("nodes") for one model: how they find each other, know that the others live, and end together.

The first node keeps a small store of keys and values, torch's own, at an address that the person gives; the others come
to it, and there the process groups of torch meet as well. Each further node counts up a number of its own every second
and reads whether the first one has ended. So both sides learn of a machine that is gone, which vLLM tells neither.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypedDict

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, and not in __all__

from kvorum.backends.vllm.spread import SpreadOptions
from kvorum.errors import BadRequest, WorkersLost

SILENT = 8.0
"""Seconds without a sign of life until a further node is taken for gone."""

_BEAT = 1.0
_LEAVING = 10.0
"""Seconds that the further nodes have for ending, once they are told to."""

_TERMS, _RANKS, _CAME, _LEFT, _LOST, _ENDED = (
    f"kvorum.{name}" for name in ("terms", "ranks", "came", "left", "lost", "ended")
)


class Terms(TypedDict):
    """What the first node says. ``files``: a digest of the model's. ``spread``: its options."""

    versions: dict[str, str]
    model: str
    files: str
    dtype: str
    trust_remote_code: bool
    spread: SpreadOptions


class Head:
    """The first node's side. ``terms``: what the others must know to take part.

    Raises:
        BadRequest: nobody can listen at that address.
    """

    def __init__(self, address: str, port: int, nodes: int, terms: Terms) -> None:
        self._further = nodes - 1
        self._beats: dict[int, tuple[int, float]] = {}
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listening = socket.create_server((address, port), family=family)
        except OSError as error:
            raise BadRequest(
                f"Nobody can listen on {address}, port {port} ({error.strerror}); give an address of this machine as "
                "master_addr, and a free port as master_port."
            ) from error
        self._store = TCPStore(
            address, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
        )
        self._store.set(_TERMS, json.dumps(terms))

    def wait(self, patience: float, report: Callable[[int], None]) -> None:
        """Until the others are there; ``report`` hears how many are.

        Raises:
            WorkersLost: they did not come, or one could not take part.
        """
        until = time.monotonic() + patience
        while (here := self._store.add(_CAME, 0)) < self._further:
            report(here)
            if (lost := self.lost()) is not None:
                self.end(lost)
                raise WorkersLost(f"{lost}.")
            if time.monotonic() > until:
                self.end("Not all nodes have come")
                missing = self._further - here
                raise WorkersLost(
                    f"{missing} of {self._further} further nodes did not come within {patience:g} seconds; start "
                    "`kvorum follow` there with this node's address, or give a longer patience."
                )
            time.sleep(0.2)
        report(here)

    def lost(self) -> str | None:
        """What has happened to a further node, if anything has."""
        if self._store.check([_LOST]):
            return self._store.get(_LOST).decode().rstrip(".")
        now = time.monotonic()
        for node in range(1, self._further + 1):
            if not self._store.check([_beat(node)]):
                continue
            count = int(self._store.get(_beat(node)))
            before, since = self._beats.get(node, (-1, now))
            self._beats[node] = (count, now if count != before else since)
            if now - self._beats[node][1] > SILENT:
                return f"Node {node} has given no sign of life for {SILENT:g} seconds"
        return None

    def end(self, reason: str = "") -> None:
        """Tell the others to end, and where all is well wait a while until they have. ``reason``: what went wrong."""
        self._store.set(_ENDED, reason)
        until = time.monotonic() + (0 if reason else _LEAVING)
        while self._store.add(_LEFT, 0) < self._store.add(_RANKS, 0) and time.monotonic() < until:
            time.sleep(0.05)


class Member:
    """A further node's side: ``node`` is its number, ``terms`` what the first one has said.

    Raises:
        WorkersLost: nobody is at the address. BadRequest: all nodes have come already.
    """

    def __init__(self, address: str, port: int, patience: float) -> None:
        try:
            self._store = TCPStore(
                address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=patience)
            )
            self.terms: Terms = json.loads(self._store.get(_TERMS))
        except RuntimeError as error:
            raise WorkersLost(
                f"No first node answers at {address}, port {port}; start it with --nodes and --master-addr."
            ) from error
        self.node = self._store.add(_RANKS, 1)
        self._patience, self._heard = patience, time.monotonic()
        self._over: str | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="kvorum-node", daemon=True)
        self._thread.start()

    def came(self) -> None:
        """This node is ready to start its processes."""
        self._store.add(_CAME, 1)

    def over(self) -> str | None:
        """None while the first node goes on; then why it does not, empty where all is well."""
        if self._over is None and time.monotonic() - self._heard > self._patience:
            return f"The first node has not answered for {self._patience:g} seconds"
        return self._over

    def lose(self, reason: str) -> None:
        """Tell the first node why this one cannot go on."""
        with suppress(RuntimeError):
            self._store.set(_LOST, reason)

    def leave(self) -> None:
        """Nothing of this node runs any more."""
        self._leaving.set()
        self._thread.join(2 * _BEAT)
        with suppress(RuntimeError):
            self._store.add(_LEFT, 1)

    def _beat(self) -> None:
        count = 0
        while self._over is None and not self._leaving.is_set():
            try:
                count += 1
                self._store.set(_beat(self.node), str(count))
                if self._store.check([_ENDED]):
                    self._over = self._store.get(_ENDED).decode()
                self._heard = time.monotonic()
            except RuntimeError:  # the connection has ended
                self._over = "The first node is gone"
            self._leaving.wait(_BEAT)


def _beat(node: int) -> str:
    return f"kvorum.beat.{node}"
