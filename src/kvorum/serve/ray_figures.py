"""One ``/metrics`` of all replicas: each tells its figures to one place; whoever is asked replies with those of all.

The place is a deployment of its own beside the replicas, in the same application: it comes and goes with them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from kvorum.serve.metrics import Metrics, joined

NAME = "figures"
EVERY = 5.0
"""Seconds between two tellings of a replica."""
SILENT = 30.0
"""Seconds after which a replica that has told nothing is gone, and its figures with it."""
_PATIENCE = 3.0
"""Seconds after which a replica replies with its own figures alone."""

log = logging.getLogger("kvorum.serve")


class Figures:
    """The figures of each replica as it told them last."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, str]] = {}

    async def tell(self, replica: str, text: str) -> dict[str, str]:
        """Take those of one; give those of all that live."""
        now = time.monotonic()
        self._told[replica] = (now, text)
        self._told = {name: told for name, told in self._told.items() if now - told[0] < SILENT}
        return {name: of for name, (_, of) in self._told.items()}


class Telling:
    """What a replica tells of itself, again and again; its server's ``/metrics`` is that of all then."""

    def __init__(self, metrics: Metrics, replica: str) -> None:
        self._metrics, self._replica = metrics, replica
        metrics.of_all = self.of_all

    async def of_all(self) -> bytes:
        """The figures of all replicas, told apart by the label ``replica``."""
        own = self._metrics.text().decode()
        try:
            place = serve.get_deployment_handle(NAME, serve.get_replica_context().app_name)
            told = await asyncio.wait_for(_awaited(place.tell.remote(self._replica, own)), _PATIENCE)
        except (RayError, RayServeException, TimeoutError) as error:
            log.warning("the figures of the other replicas are not to be had: %s", error)
            told = {}
        return joined({**told, self._replica: own})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the replica lives."""
        task = asyncio.create_task(self._tell())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.of_all()


async def _awaited(response: serve.handle.DeploymentResponse[dict[str, str]]) -> dict[str, str]:
    """A response of Ray's as a coroutine."""
    told: dict[str, str] = await response
    return told
