"""`kvorum serve`: load a model and listen."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import choose_model, load_options
from kvorum.cli.display.state import ShownRun
from kvorum.cli.runner import load
from kvorum.errors import BadRequest, MissingExtra

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from kvorum.api import Engine
    from kvorum.serve.settings import ServerSettings


def serve(args: Namespace) -> int:
    """Serve until stopped. Returns the exit code."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtra("kvorum serve needs more packages: pip install 'kvorum[serve]'.") from error
    from kvorum.serve.settings import Limits, ServerSettings

    given = {
        "workers": args.max_workers,
        "ticks": args.max_ticks,
        "prompt_tokens": args.max_prompt,
        "waiting": args.max_waiting,
        "rows": args.max_rows,
    }
    wrong = next((f"{name}={value}" for name, value in given.items() if value is not None and value < 1), None)
    if wrong is not None:
        raise BadRequest(f"The limit {wrong} leaves nothing; give at least 1.")
    settings = ServerSettings(
        store=_store(args.store),
        host=args.host,
        port=args.port,
        api_key=args.api_key or os.environ.get("KVORUM_API_KEY") or None,
        names=tuple(args.name),
        limits=Limits(**{name: value for name, value in given.items() if value is not None}),
    )
    model = choose_model(args.model)
    place = _bind(settings.host, settings.port)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    engine = load(model, load_options(args), ShownRun(), lambda: _offer(args.program or []))
    return _listen(engine, settings, place)


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


def _listen(engine: Engine, settings: ServerSettings, place: socket.socket) -> int:
    """Until a signal. Returns the exit code."""
    import uvicorn

    from kvorum.serve.app import create_app

    class Server(uvicorn.Server):
        """Says where it listens once it does."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                host = f"[{settings.host}]" if ":" in settings.host else settings.host
                port = self.servers[0].sockets[0].getsockname()[1]
                print(f"kvorum serves {app.state.service.name} at http://{host}:{port}/", flush=True)

    app = create_app(engine, settings)
    server = Server(
        uvicorn.Config(
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
    )
    try:
        server.run(sockets=[place])
    except KeyboardInterrupt:
        return 130
    return 0 if server.started else 1


def _store(given: str | None) -> Path:
    from kvorum.models.cache_folder import cache_root

    return Path(given).expanduser() if given is not None else cache_root() / "runs"
