"""The OpenAPI description, put right where the framework's own says other than what the server does."""

from __future__ import annotations

from fastapi import FastAPI

_RETRY = {"Retry-After": {"description": "Seconds after which to try again", "schema": {"type": "integer"}}}


def describe(app: FastAPI, *, key: bool) -> None:
    """Let ``app`` describe itself without the framework's 422, which is a 400 here, and with ``Retry-After``.

    ``key``: an API key is needed.
    """
    schema = app.openapi()
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
    app.openapi_schema = schema
