"""What routes ask for by their parameters' types: the service, the client, a stored run."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from kvorum.serve.errors import missing
from kvorum.serve.service import Service
from kvorum.store.runs import Record


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _client(request: Request) -> str:
    return request.client.host if request.client else ""


ServiceDep = Annotated[Service, Depends(_service)]
Client = Annotated[str, Depends(_client)]
"""The address whose turn it is; with the user that a request names it stands for one client."""


async def find_run(service: Service, run: str) -> Record:
    """The run of that id. Raises ApiError 404, 503."""
    record = await service.record(run)
    if record is None:
        raise missing(f"There is no run {run!r}.")
    return record


async def _stored_run(service: ServiceDep, run: Annotated[str, Path(max_length=80)]) -> Record:
    return await find_run(service, run)


StoredRun = Annotated[Record, Depends(_stored_run)]
"""The run that the path names."""
