"""MCP servers as the common ``mcpServers`` JSON names them, and which of them may be used.

    {"mcpServers": {
        "git":   {"command": "uvx", "args": ["mcp-server-git"], "env": {"HOME": "${HOME}"}},
        "board": {"url": "http://127.0.0.1:8080/mcp", "headers": {"Authorization": "Bearer ${BOARD_TOKEN:-none}"}}
    }}

``${NAME}`` and ``${NAME:-default}`` are taken from the environment. A server on another machine, and one that reaches
the network for the model (``fetch``), is refused unless its name is allowed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_REACHES_OUT = re.compile(r"(?i)(^|[^a-z])(fetch|browser|puppeteer|playwright|web-?search|brave|tavily|exa)([^a-z]|$)")
"""Words in the name or the command of servers that go to the network for a model."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A server: ``command`` with its arguments, environment and folder, or ``url`` with ``headers``.

    ``approve``: a person is asked before any of its tools is called.
    """

    name: str
    command: str = ""
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    approve: bool = False

    @property
    def refusal(self) -> str:
        """Why it is refused unless it is allowed by name; "": it is not."""
        if self.url and not _is_here(self.url):
            return f"it is on another machine ({urlsplit(self.url).hostname})"
        if _REACHES_OUT.search(" ".join([self.name, self.command, *self.args])):
            return "it goes to the network for the model"
        return ""


def read_servers(path: str) -> list[ServerConfig]:
    """The servers of a JSON file, in its order; those with ``"disabled": true`` are left out.

    Raises:
        BadRequest: the file cannot be read, or a server has no command and no url, or names a variable that is not set.
    """
    try:
        found: Json = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadRequest(f"The servers in {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{path} is no JSON: {error}.") from None
    servers = found.get("mcpServers", found.get("servers")) if isinstance(found, Mapping) else None
    if not isinstance(servers, Mapping):
        raise BadRequest(f'{path} has no object "mcpServers".')
    return [
        _server(name, given, path)
        for name, given in servers.items()
        if not (isinstance(given, Mapping) and given.get("disabled") is True)
    ]


def _server(name: str, given: Json, path: str) -> ServerConfig:
    where = f"The server {name!r} in {path}"
    if not isinstance(given, Mapping):
        raise BadRequest(f"{where} is no object.")
    command, url = given.get("command", ""), given.get("url", "")
    if not isinstance(command, str) or not isinstance(url, str) or bool(command) == bool(url):
        raise BadRequest(f"{where} needs either a command or a url.")
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise BadRequest(f"{where} has a url that is neither http nor https.")
    args, cwd = given.get("args", []), given.get("cwd")
    if isinstance(args, str) or not isinstance(args, Sequence) or not all(isinstance(one, str) for one in args):
        raise BadRequest(f"{where} has args that are no list of texts.")
    if cwd is not None and not isinstance(cwd, str):
        raise BadRequest(f"{where} has a cwd that is no text.")
    return ServerConfig(
        name,
        _expanded(command, where),
        [_expanded(str(one), where) for one in args],
        _texts(given.get("env"), where, "env"),
        None if cwd is None else _expanded(cwd, where),
        _expanded(url, where),
        _texts(given.get("headers"), where, "headers"),
        given.get("approve") is True,
    )


def _texts(given: Json, where: str, what: str) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(one, str | int | float) for one in given.values()):
        raise BadRequest(f"{where} has {what} that are no object of texts.")
    return {key: _expanded(str(value), where) for key, value in given.items()}


def _expanded(text: str, where: str) -> str:
    def value(found: re.Match[str]) -> str:
        known = os.environ.get(found[1], found[2])
        if known is None:
            raise BadRequest(f"{where} wants the variable {found[1]}, which is not set; set it, or write a default.")
        return known

    return _VARIABLE.sub(value, text)


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
