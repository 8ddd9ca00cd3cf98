"""What stands before every request: host, origin, key, size and form of the body; and what goes on every reply.

Plain ASGI, so that nothing is held back from streams. CORS is closed: no reply carries a permission for other origins,
and a request that says it comes from one is refused.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvorum.serve.errors import ApiError, as_api_error
from kvorum.serve.metrics import Metrics
from kvorum.serve.settings import LOOPBACK, Settings

BODY_SECONDS = 30.0
"""How long a client may take to send its body."""
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
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

log = logging.getLogger("kvorum.serve")


class Guard:
    """Wraps the application: refuses what is not to reach it, and puts headers on every reply."""

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._hosts = _hosts(settings)
        self._key = None if settings.api_key is None else settings.api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started, status, begun = time.monotonic(), 500, False

        async def reply(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message.get("headers", []), *_HEADERS]
                if not scope["path"].startswith("/page/"):
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        async def refuse(error: ApiError) -> None:
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else error.headers
            await JSONResponse(error.body, error.status, headers)(scope, receive, reply)

        try:
            headers = {key.lower(): value for key, value in scope["headers"]}
            self._check(scope, headers)
            body = await self._body(scope, headers, receive)
            await self._app(scope, _replay(body, receive), reply)
        except ApiError as error:
            await refuse(error)
        except ConnectionError:
            status = 499
        except Exception as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not begun:
                await refuse(as_api_error(error))
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request.labels(route).observe(time.monotonic() - started)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        name = (urlsplit(f"//{host}").hostname or "") if _is_host(host) else ""
        if self._hosts is not None and name not in self._hosts:
            raise ApiError(
                421, "This server is not reached under that name; --name NAME allows it.", code="host_not_allowed"
            )
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host.lower():
            raise ApiError(403, "Pages of other origins may not use this server.", code="origin_not_allowed")
        path = scope["path"]
        if self._key is None or path in _OPEN or path.startswith("/page/"):
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if not hmac.compare_digest(given.strip() if scheme.lower() == b"bearer" else b"", self._key):
            raise ApiError(
                401,
                "This server needs its API key: Authorization: Bearer KEY.",
                kind="authentication_error",
                code="invalid_api_key",
            )

    async def _body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, within the limits, as UTF-8 JSON."""
        most = self._settings.limits.body
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        parts, size, more = [], 0, scope["method"] not in ("GET", "HEAD", "OPTIONS")
        deadline = time.monotonic() + BODY_SECONDS
        while more:
            try:
                message = await asyncio.wait_for(receive(), max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                raise ApiError(408, "The body did not arrive in time.") from None
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise _too_large(most)
            more = message.get("more_body", False)
        body = b"".join(parts)
        if body:
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                raise ApiError(415, "Send JSON, with Content-Type: application/json.", code="unsupported_media_type")
            _check_text(body)
        return body


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body is larger than the {most} bytes that this server takes.", code="too_large")


def _check_text(body: bytes) -> None:
    """Everything behind this point may take strings for texts that can be written down again."""
    try:
        body.decode("utf-8")
        if _SURROGATE.search(body):
            json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8")
    except (UnicodeError, ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON in UTF-8.", code="invalid_json") from None


def _is_host(host: str) -> bool:
    return re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", host) is not None


def _hosts(settings: Settings) -> frozenset[str] | None:
    """Names under which the server may be reached; None: any, for where the key alone keeps strangers out."""
    if settings.host not in LOOPBACK and not settings.names:
        return None
    return frozenset(name.lower() for name in (*LOOPBACK, settings.host, *settings.names))


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
