"""What stands before every request: host, origin, key, size and form of the body; and what goes on every reply.

Plain ASGI, so that nothing is held back from streams. CORS is closed: no reply carries a permission for other origins,
and a request that says it comes from one is refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvorum.errors import WorkersLost
from kvorum.serve.error_forms import refusal
from kvorum.serve.errors import ApiError, as_api_error, stopping
from kvorum.serve.keys.caller import Caller
from kvorum.serve.keys.limit_headers import limit_headers
from kvorum.serve.loaded_models import Held
from kvorum.serve.server import Server
from kvorum.serve.settings import LOOPBACK, ServerSettings

BODY_SECONDS = 30.0
"""How long a client may take to send its body."""
CALLER = "kvorum.caller"
"""Where in a request's scope its ``Caller`` stands."""
HELD = "kvorum.held"
"""Where in a request's scope the models stand that it holds until it has been replied to (``Held``)."""
MCP = "/mcp"
"""What its tools ask of the server are requests of their own, and counted as such."""
_OPEN = ("/", "/health")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

log = logging.getLogger("kvorum.serve")


class RequestGuard:
    """Wraps the application: refuses what is not to reach it, replies to its errors, puts headers on every reply."""

    def __init__(self, app: ASGIApp, *, server: Server) -> None:
        settings, self._shared, self._models = server.settings, server.shared, server.models
        self._app, self._settings, self._metrics = app, settings, server.shared.metrics
        self._names = frozenset(name.lower() for name in settings.names)
        self._hosts = _hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root, head = self._settings.root_path, scope["method"] == "HEAD"
        path = scope["path"].removeprefix(root) if scope["path"].startswith(f"{root}/") else scope["path"]
        scope = {**scope, "root_path": root, "path": root + path, "method": "GET" if head else scope["method"]}
        started, status, begun = time.monotonic(), 500, False
        caller: Caller | None = None

        async def reply(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message.get("headers", []), *_HEADERS]
                if caller is not None and caller.allowance is not None:
                    message["headers"] += limit_headers(caller.allowance.left(), path)
                page = path.startswith("/page/")  # which is asked again whether it has changed
                message["headers"].append((b"cache-control", b"no-cache" if page else b"no-store"))
                await send(message)
                if head:  # that is all, also of a stream
                    await send({"type": "http.response.body"})
            elif not head:
                await send(message)

        self._shared.replies += 1
        held = scope[HELD] = Held(self._models)
        try:
            if root and path == root:  # without the slash behind it that the page needs to find its files
                await RedirectResponse(f"{root}/")(scope, receive, reply)
                return
            headers = Headers(scope=scope)
            self._check(headers)
            if path not in _OPEN and not path.startswith("/page/"):
                caller = self._shared.keys.caller(headers, (scope.get("client") or [""])[0])
                if caller.allowance is not None and scope["method"] == "POST" and path != MCP:
                    caller.allowance.begin()
                scope[CALLER] = caller
            body = await self._body(Request(scope, receive))
            await self._app(scope, _replay(body, receive), reply)
        except (ConnectionError, ClientDisconnect):
            status = 499
        except asyncio.CancelledError:  # of who was not done with its last words
            if not self._shared.ended.is_set():
                raise
            if not begun:
                await refusal(stopping(), path)(scope, receive, reply)
        except Exception as error:
            refused = as_api_error(error)
            if refused.status == 500 and refused is not error:
                log.exception("%s %s failed", scope["method"], scope["path"])
            elif isinstance(error, WorkersLost):
                log.error("%s %s failed: %s", scope["method"], scope["path"], error)
            if not begun:
                await refusal(refused, path)(scope, receive, reply)
        finally:
            held.release()
            self._shared.replies -= 1
            route = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request.labels(route).observe(time.monotonic() - started)

    def _check(self, headers: Headers) -> None:
        """Raises ApiError for a host or an origin that is not to be let in, or two; for all when the server stops."""
        host = headers.get("host", "").lower()
        if len(headers.getlist("host")) > 1:  # of which a proxy may have looked at another one
            raise ApiError(400, "A request has one header Host.", code="invalid_http")
        if not self._is_ours(host):
            raise ApiError(
                421, "This server is not reached under that name; --name NAME allows it.", code="host_not_allowed"
            )
        origins = {host, *self._names}
        shown = headers.get("x-forwarded-host", "").partition(",")[0].strip().lower()
        if shown and self._is_ours(shown):  # by a proxy, which itself asks under another name
            origins.add(shown)
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] not in origins:
            raise ApiError(403, "Pages of other origins may not use this server.", code="origin_not_allowed")
        if self._shared.draining:
            raise stopping()

    def _is_ours(self, host: str) -> bool:
        """Whether the server may be reached under this name, on any port."""
        return self._hosts is None or _name(host) in self._hosts

    async def _body(self, request: Request) -> bytes:
        """The whole body, within the limits, as UTF-8 JSON."""
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return b""
        most, body = self._settings.limits.body_bytes, bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        message = f"The body is larger than the {most} bytes that this server takes."
                        raise ApiError(413, message, code="too_large")
        except TimeoutError:
            raise ApiError(408, "The body did not arrive in time.") from None
        if body:
            if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                raise ApiError(415, "Send JSON, with Content-Type: application/json.", code="unsupported_media_type")
            _check_text(body)
        return bytes(body)


def _check_text(body: bytearray) -> None:
    """Everything behind this point may take strings for texts that can be written down again."""
    try:
        if b"\0" in body:  # UTF-16 or 32, which parsers take where it looks like UTF-8
            raise ValueError("not UTF-8")
        body.decode("utf-8")
        if _SURROGATE.search(body):
            json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8")
    except (UnicodeError, ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON in UTF-8.", code="invalid_json") from None


def _hosts(settings: ServerSettings) -> frozenset[str] | None:
    """Names under which the server may be reached; None: any, for where the key alone keeps strangers out."""
    if settings.host not in LOOPBACK and not settings.names:
        return None
    return frozenset((*LOOPBACK, settings.host.lower(), *(_name(name.lower()) for name in settings.names)))


def _name(host: str) -> str:
    """A host without its port."""
    found = _HOST.fullmatch(host)
    return host if found is None else found[1].strip("[]")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then whatever else the client does."""
    read: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return read.pop() if read else await receive()

    return again
