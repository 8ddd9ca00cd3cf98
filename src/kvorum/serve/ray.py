"""The server as an application of Ray Serve: ``serve run kvorum.serve.ray:app model=NAME store=URL replicas=2``.

Each replica is a whole server with an engine of its own. Requests with the same ``x-session-id`` go to the same one, as
long as it lives; so a team's blocks and prompts are where its requests come. Runs and responses are in the one
database: what a replica leaves, another takes over. ``/metrics`` is that of all replicas.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from kvorum.api import Engine
from kvorum.backends.vllm.spread import SpreadOptions
from kvorum.errors import BadRequest, WorkersLost
from kvorum.models.cache_folder import cache_root
from kvorum.serve.app import create_app
from kvorum.serve.ray_figures import NAME, Figures, Telling
from kvorum.serve.ray_router import PLACE, SINCE
from kvorum.serve.settings import ServerSettings
from kvorum.serve.telemetry import export

_ROUTER = "kvorum.serve.ray_router.SessionRouter"


class ReplicaOptions(BaseModel):
    """What ``serve run`` takes as KEY=VALUE, and a YAML file under ``args``."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    """A model's name, as ``kvorum serve --model`` takes it."""
    store: str | None = None
    """The URL of a PostgreSQL database, which more than one replica needs."""
    blocks: str | None = None
    """The folder of saved blocks, a path or URL; a shared one where replicas are on several machines."""
    replicas: int = Field(1, ge=1)
    cpus: float = Field(1, ge=0)
    """Of a replica."""
    gpus: float = Field(0, ge=0)
    """Of a replica."""
    kv_tokens: int | None = Field(None, ge=1)
    """As ``Engine.load`` takes it: nothing said is 65536, and what a GPU has room for with ``vllm``."""
    dtype: str = "auto"
    quantize: str = "auto"
    """``auto``, ``packed``, or ``none``."""
    backend: Literal["local", "vllm"] = "local"
    """``local``, or ``vllm``: each replica's model in processes of vLLM's on its machine."""
    tensor_parallel: int = Field(1, ge=1)
    """Of ``vllm``: processes that share each layer."""
    pipeline_parallel: int = Field(1, ge=1)
    """Of ``vllm``: stages of layers. Both together are a replica's GPUs."""
    host: str = "127.0.0.1"
    """Where Ray's proxy is heard; beyond this machine KVORUM_API_KEY must be set."""
    names: str = ""
    """Further names under which clients reach it, with commas."""
    drain: float = Field(60, ge=0)
    """Seconds that replies under way may take when a replica is to stop."""
    requests: int = Field(256, ge=1)
    """Requests that a replica holds at a time; more wait in Ray's proxy."""
    telemetry: bool = False
    """Whether each replica sends spans (``kvorum serve --telemetry``)."""

    @classmethod
    def of(cls, args: dict[str, str]) -> ReplicaOptions:
        """Raises BadRequest."""
        try:
            asked = cls.model_validate(args)
        except ValidationError as error:
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"]))
            raise BadRequest(f"The application's argument {place!r}: {wrong['msg']}.") from error
        if asked.replicas > 1 and asked.store is None:
            raise BadRequest("Several replicas need one store: give store=postgresql+psycopg://USER@HOST/DATABASE.")
        ranks = asked.tensor_parallel * asked.pipeline_parallel
        if asked.backend != "vllm" and ranks > 1:
            raise BadRequest("tensor_parallel and pipeline_parallel are processes of vLLM's: give backend=vllm, too.")
        if asked.backend == "vllm" and asked.gpus not in (0, ranks):
            raise BadRequest(f"A replica has {ranks} processes of vLLM's, a GPU each: give gpus={ranks}.")
        return asked

    def spread(self) -> SpreadOptions:
        """What ``Engine.load`` takes for vLLM's processes."""
        if self.backend != "vllm":
            return SpreadOptions()
        return SpreadOptions(tensor_parallel=self.tensor_parallel, pipeline_parallel=self.pipeline_parallel)


class Replica:
    """A replica as Ray makes it: its server is ``build``'s, and ``figures`` is started and ended with it."""

    app: FastAPI
    """Set by Ray."""

    def __init__(self, figures: DeploymentHandle[Figures]) -> None:
        pass

    def record_replica_metadata(self) -> dict[str, float]:
        """What Ray asks for once, as the replica starts, and tells to every router."""
        return {PLACE: serve.get_replica_context().rank.rank, SINCE: time.time()}

    def check_health(self) -> None:
        """What Ray asks again and again; it puts another replica in the place of one that cannot compute.

        Raises:
            WorkersLost: its model's processes have died or stand still.
        """
        if (lost := self.app.state.server.models.lost) is not None:
            raise WorkersLost(lost)


def build(asked: ReplicaOptions) -> FastAPI:
    """The server of one replica, in its process."""
    if asked.telemetry:
        export()
    replica = str(serve.get_replica_context().replica_id.unique_id)
    folder = cache_root() / "runs" if asked.store is None else cache_root() / "replicas" / replica
    settings = ServerSettings(
        store=folder,
        database=asked.store,
        blocks=ServerSettings.blocks_at(asked.blocks) if asked.blocks else cache_root() / "runs" / "blocks",
        replica=replica,
        host=asked.host,
        api_key=os.environ.get("KVORUM_API_KEY") or None,
        names=tuple(name for name in asked.names.split(",") if name),
        drain=asked.drain,
        telemetry=asked.telemetry,
    )
    quantize = None if asked.quantize == "none" else asked.quantize
    engine = Engine.load(
        asked.model,
        backend=asked.backend,
        kv_tokens=asked.kv_tokens,
        dtype=asked.dtype,
        quantize=quantize,
        **asked.spread(),
    )
    made = create_app(engine, settings)
    telling, alone = Telling(made.state.server.shared.metrics, replica), made.router.lifespan_context

    @asynccontextmanager
    async def running(of: FastAPI) -> AsyncIterator[None]:
        async with alone(of), telling.running():
            yield

    made.router.lifespan_context = running

    @made.middleware("http")
    async def named(request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Says who has replied."""
        reply = await call_next(request)
        reply.headers["x-kvorum-replica"] = replica
        return reply

    return made


def app(args: dict[str, str]) -> Application:
    """The application, for ``serve run`` and for YAML. Raises BadRequest."""
    asked = ReplicaOptions.of(args)
    server = serve.deployment(serve.ingress(lambda: build(asked))(Replica))
    figures = serve.deployment(Figures).options(name=NAME, ray_actor_options={"num_cpus": 0}).bind()
    made: Application = server.options(
        name="kvorum",
        num_replicas=asked.replicas,
        max_ongoing_requests=asked.requests,
        graceful_shutdown_timeout_s=asked.drain + 10,
        ray_actor_options={"num_cpus": asked.cpus, "num_gpus": asked.gpus},
        request_router_config=RequestRouterConfig(request_router_class=_ROUTER),
    ).bind(figures)
    return made
