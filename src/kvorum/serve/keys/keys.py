"""All keys of a server, with what each has left."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers

from kvorum.serve.errors import ApiError
from kvorum.serve.keys.allowance import Allowance
from kvorum.serve.keys.api_key import ApiKey, find_key
from kvorum.serve.keys.caller import Caller


class Keys:
    """``needed``: whether requests need a key; else all are from nobody in particular."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = tuple(keys)
        self._allowances = {key.name: Allowance(key) for key in keys}
        self.needed = bool(keys)

    def caller(self, headers: Headers, address: str) -> Caller:
        """Who sends a request with these headers. Raises ApiError 401 where none of its keys opens the server."""
        if not self.needed:
            return Caller(address=address)
        given = sent_key(headers)
        key = find_key(self._keys, given.encode("latin-1"))
        if key is None:
            why = "that key does not open it" if given else "it needs an API key"
            raise ApiError(
                401,
                f"This server is not open to all, and {why}: send Authorization: Bearer KEY.",
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return Caller(key.name, address, "", key.models, self._allowances[key.name])

    def resumed(self, owner: str) -> Caller:
        """Whom a run goes on for that an earlier server has begun for ``owner``."""
        return Caller(owner, "resumed", allowance=self._allowances.get(owner))


def sent_key(headers: Headers) -> str:
    """The text of the key that comes with a request: as OpenAI's clients send it, or as Anthropic's do; else ""."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
