"""Where a schema comes from: JSON text, an object, a class of pydantic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol, TypeVar

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject

Made = TypeVar("Made", covariant=True)


class SchemaClass(Protocol[Made]):
    """A class that tells its JSON schema and makes instances of what fits it, as pydantic's models do."""

    def model_json_schema(self) -> dict[str, Json]:
        """Its JSON schema."""

    def model_validate(self, obj: Json) -> Made:
        """An instance of what JSON says."""


def schema_object(schema: str | JsonObject) -> JsonObject:
    """The schema that JSON text is, or the object itself. Raises BadRequest: it is none."""
    if isinstance(schema, str):
        try:
            found = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"The schema is no JSON: {error}.") from None
    else:
        found = schema
    if not isinstance(found, Mapping):
        raise BadRequest(f"A schema is a JSON object, not {found!r:.60}.")
    return found


def schema_text(schema: str | JsonObject | SchemaClass[Made]) -> str:
    """A schema as JSON text. Raises BadRequest: it is none."""
    if isinstance(schema, str):
        return schema
    found = schema if isinstance(schema, Mapping) else schema.model_json_schema()
    try:
        return json.dumps(found, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"The schema is nothing that JSON can hold: {error}.") from None
