"""The OpenAPI description, put right where the framework's own says other than what the server does."""

from __future__ import annotations

from typing import Any

_RETRY = {"Retry-After": {"description": "Seconds after which to try again", "schema": {"type": "integer"}}}


def describe(schema: dict[str, Any], *, key: bool) -> dict[str, Any]:
    """``schema`` without the framework's 422, which is a 400 here, and with ``Retry-After``; ``key``: one is needed."""
    for methods in schema["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            if "429" in operation["responses"]:
                operation["responses"]["429"]["headers"] = _RETRY
    parts = schema.setdefault("components", {})
    for name in ("HTTPValidationError", "ValidationError"):
        parts.get("schemas", {}).pop(name, None)
    if key:
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        schema["paths"]["/health"]["get"]["security"] = []  # open to all
    return schema
