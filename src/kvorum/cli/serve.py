"""`kvorum serve`: load a model and listen."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import load_options
from kvorum.cli.served_models import offered_models
from kvorum.errors import BadRequest, need

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from kvorum.serve.model_source import ModelSource
    from kvorum.serve.settings import ServerSettings


def serve(args: Namespace) -> int:
    """Serve until stopped. Returns the exit code."""
    for package in ("fastapi", "prometheus_client", "uvicorn"):
        need(package, "kvorum serve", "serve")
    from kvorum.models.cache_folder import cache_root
    from kvorum.serve.keys.api_key import read_keys
    from kvorum.serve.settings import Limits, ServerSettings
    from kvorum.store.database.postgresql import is_url

    names = ("workers", "ticks", "prompt_tokens", "tokens", "waiting", "rows")
    given = {name: getattr(args, f"max_{name}") for name in names}
    limits = {name: value for name, value in given.items() if value is not None}
    for name, value in limits.items():
        if value < 1:
            raise BadRequest(f"The limit {name}={value} leaves nothing; give at least 1.")
    shared = args.store is not None and is_url(args.store)
    settings = ServerSettings(
        store=cache_root() / "runs" if args.store is None or shared else Path(args.store).expanduser(),
        database=args.store if shared else None,
        blocks=None if args.blocks is None else ServerSettings.blocks_at(args.blocks),
        telemetry=args.telemetry,
        tick_share=args.tick_spans,
        host=args.host,
        port=args.port,
        api_key=args.api_key or os.environ.get("KVORUM_API_KEY") or None,
        api_keys=() if args.api_keys is None else read_keys(Path(args.api_keys).expanduser()),
        names=tuple(args.name),
        root_path=args.root_path.rstrip("/"),
        drain=args.drain,
        models_loaded=args.models_loaded,
        limits=Limits(**limits),
    )
    if args.telemetry:
        from kvorum.serve.telemetry import export

        export()
    sources = offered_models(args.model or [None], load_options(args), lambda: _offer(args.program or []))
    with _bind(settings.host, settings.port) as place:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        return _listen(sources, settings, place)


def _offer(programs: Sequence[str]) -> None:
    """Take own programs among those that can be asked for by name."""
    from kvorum.programs import load as load_program

    for where in programs:
        load_program(where)


def _bind(host: str, port: int) -> socket.socket:
    """The place where clients will be heard, taken before the model is loaded. Raises BadRequest."""
    place: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family, kind, protocol)
        if os.name == "posix":  # else a port is taken for a while after its server has ended
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
    except OSError as error:
        if place is not None:
            place.close()
        raise BadRequest(f"Nobody can listen on {host}, port {port}: {error.strerror}; give another.") from error
    return place


def _listen(sources: Sequence[ModelSource], settings: ServerSettings, place: socket.socket) -> int:
    """Until a signal. Returns the exit code."""
    from kvorum.serve.app import create_app
    from kvorum.serve.http_server import HttpServer

    class Server(HttpServer):
        """Says where it listens once it does."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                host = f"[{settings.host}]" if ":" in settings.host else settings.host
                print(f"kvorum serves {names} at http://{host}:{self.port}/", flush=True)

    names = ", ".join(source.name for source in sources)
    app = create_app(sources, settings)
    server = Server(app, settings)
    try:
        server.run(sockets=[place])
    except KeyboardInterrupt:
        return 130
    return 0 if server.started else 1
