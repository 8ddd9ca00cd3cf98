"""`kvorum serve`: load a model and listen."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvorum.cli.board import Board
from kvorum.cli.options import choose_model, engine_options
from kvorum.errors import BadRequest, MissingExtra

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine
    from kvorum.serve.settings import Settings


def serve(args: Namespace) -> int:
    """Serve until stopped. Returns the exit code."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtra("kvorum serve needs more packages: pip install 'kvorum[serve]'.") from error
    from kvorum.serve.settings import Limits, Settings

    given = {
        "workers": args.max_workers, "ticks": args.max_ticks, "prompt": args.max_prompt, "waiting": args.max_waiting,
        "rows": args.max_rows,
    }  # fmt: skip
    wrong = next((f"{name}={value}" for name, value in given.items() if value is not None and value < 1), None)
    if wrong is not None:
        raise BadRequest(f"The limit {wrong} leaves nothing; give at least 1.")
    settings = Settings(
        store=_store(args.store),
        host=args.host,
        port=args.port,
        api_key=args.api_key or os.environ.get("KVORUM_API_KEY") or None,
        names=tuple(args.name),
        limits=Limits(**{name: value for name, value in given.items() if value is not None}),
    )
    from kvorum.cli.solve import load

    model = choose_model(args.model)
    place = _bind(settings.host, settings.port)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    engine = load(model, engine_options(args), Board(), lambda: None)
    return _listen(engine, settings, place)


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


def _listen(engine: Engine, settings: Settings, place: socket.socket) -> int:
    import uvicorn

    from kvorum.serve.app import create_app

    app = create_app(engine, settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
        limit_concurrency=None,
        ws="none",
    )
    return _Server(config, app.state.service.name).listen(place)


class _Server:
    """uvicorn, which says where it listens once it does."""

    def __init__(self, config: Any, model: str) -> None:
        import uvicorn

        class Server(uvicorn.Server):
            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets)
                if self.started:
                    port = self.servers[0].sockets[0].getsockname()[1]
                    host = f"[{config.host}]" if ":" in config.host else config.host
                    print(f"kvorum serves {model} at http://{host}:{port}/", flush=True)

        self._server = Server(config)

    def listen(self, place: socket.socket) -> int:
        """Until a signal. Returns the exit code."""
        try:
            self._server.run(sockets=[place])
        except KeyboardInterrupt:
            return 130
        return 0 if self._server.started else 1


def _store(given: str | None) -> Path:
    from kvorum.models.cache_folder import cache_root

    return Path(given).expanduser() if given is not None else cache_root() / "runs"
