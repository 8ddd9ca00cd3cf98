"""`kvorum mcp`: a running server's blocks and programs for an editor, as MCP on standard input and output."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from kvorum.errors import BadRequest, need

if TYPE_CHECKING:
    from argparse import Namespace


def mcp(args: Namespace) -> int:
    """Speak MCP until the editor goes away. Nothing but its messages is written to standard output."""
    need("mcp", "kvorum mcp", "mcp")
    from kvorum.serve.mcp_face.api_calls import ApiCalls
    from kvorum.serve.mcp_face.server import mcp_server

    if not args.server.startswith(("http://", "https://")):
        raise BadRequest(f"The server {args.server!r} is no address; give one such as http://127.0.0.1:8000.")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    key = args.api_key or os.environ.get("KVORUM_API_KEY") or None
    mcp_server(ApiCalls(args.server.rstrip("/"), key=key)).run("stdio")
    return 0
