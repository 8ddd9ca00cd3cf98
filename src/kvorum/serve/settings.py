"""What a server is started with: where it listens, where it keeps runs, and its limits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.serve.keys.api_key import ApiKey, check_keys

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request, or all together, may ask for. What is beyond is refused before anything is done."""

    body_bytes: int = 4 * 2**20
    """Bytes of a request's body."""
    prompt_tokens: int = 16384
    """Tokens that a prompt may have."""
    tokens: int = 8192
    """Tokens that one reply may have."""
    default_tokens: int = 1024
    """Tokens of a chat reply that says nothing of it; less where the model has fewer positions left."""
    choices: int = 16
    """``n``, and the prompts of one request."""
    workers: int = 16
    """Workers that a run may have, and any program inside it."""
    ticks: int = 4096
    """Of a run's budget; also what a budget without ticks gets."""
    rows: int = 128
    """Rows of all requests and runs together in a tick; more wait."""
    waiting: int = 256
    """Requests and runs that may wait; further ones get 429."""
    blocks: int = 256
    """Blocks that clients may hold."""
    cached_share: float = 0.5
    """The share of the cache's pages that prompts of earlier requests may keep."""
    connections: int = 2048
    """Connections that may be open at a time."""
    head_seconds: float = 10.0
    """Seconds that a request's head may take to arrive."""
    unread_seconds: float = 60.0
    """Seconds for which a client may leave its reply unread once the buffer of its connection is full."""
    streams: int = 512
    """Event streams that may be open at a time."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server listens and where it keeps its runs.

    Raises:
        BadRequest: it would listen to other machines without a key.
    """

    store: Path
    """The folder of runs, responses and saved blocks."""
    database: str | None = None
    """The URL of a PostgreSQL database for runs and responses in place of that folder; other servers may share it."""
    blocks: Path | str | None = None
    """The folder of saved blocks, which other servers may share, by its path or its URL; None: in ``store``."""
    replica: str = ""
    """The server's name among those that share a database; "": one is drawn."""
    telemetry: bool = False
    """Whether spans are made for OpenTelemetry."""
    tick_share: float = 0.01
    """The share of ticks that get a span."""
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    """The one key, without limits; ``api_keys`` are further ones."""
    api_keys: tuple[ApiKey, ...] = ()
    names: tuple[str, ...] = ()
    """Further names, beside the address, under which the server may be reached, also through a proxy; with a port where
    that is not the scheme's own."""
    root_path: str = ""
    """The path under which a proxy shows the server, as in ``/kvorum``, whether or not the proxy strips it."""
    drain: float = 5.0
    """Seconds that replies under way may take when the server is told to stop; then they are ended."""
    models_loaded: int | None = None
    """How many of the models may be loaded at a time; None: all."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.root_path and not _PATH.fullmatch(self.root_path):
            raise BadRequest(f"The root path {self.root_path!r} must be like /kvorum: a slash before each part.")
        if not 0 <= self.drain < float("inf"):
            raise BadRequest(f"Replies cannot be given {self.drain} seconds to end; give 0 or more.")
        if self.host not in LOOPBACK and not self.keys:
            raise BadRequest(f"Listening on {self.host} lets other machines in: give --api-key KEY or --api-keys FILE.")
        if self.models_loaded is not None and self.models_loaded < 1:
            raise BadRequest(f"{self.models_loaded} models cannot be loaded at a time; give 1 or more.")
        check_keys(self.keys)
        if not 0 <= self.port < 65536:
            raise BadRequest(f"There is no port {self.port}; give one from 0 to 65535.")

    @staticmethod
    def blocks_at(words: str) -> Path | str:
        """What was asked for as the folder of saved blocks: a URL as fsspec takes it, else a path."""
        return words if "://" in words else Path(words).expanduser()

    @property
    def block_folder(self) -> Path | str:
        """Where saved blocks lie."""
        return self.blocks or self.store / "blocks"

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All keys; none where everybody may use the server. Raises BadRequest."""
        return (*(() if self.api_key is None else (ApiKey.of(self.api_key),)), *self.api_keys)
