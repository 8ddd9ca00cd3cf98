"""Typed messages: what a worker may say in one step, as a JSON schema that holds while it is written.

    verdict = Message.of("verdict", {"type": "object", "properties": {"decision": {"enum": ["accept", "reject"]}}})
    turn = Turn(["Is it good?"], rules, grammar=verdict.grammar)
    fields = verdict.read(said)                 # {"decision": ValueAt("accept", 14, 20)}

A grammar keeps a model within the schema token by token. What was cut, or said by somebody without a grammar, is read
leniently and then checked against the same schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvorum.errors import BadRequest
from kvorum.harness.forms.plain_schema import plain_schema
from kvorum.harness.forms.schema_sources import Made, SchemaClass, schema_object
from kvorum.harness.json_objects import ValueAt, json_objects
from kvorum.harness.speaker import Malformed, Quote, TurnReply
from kvorum.jsontypes import JsonObject
from kvorum.sampling.grammar import Grammar

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator


@dataclass(frozen=True, slots=True)
class Message:
    """A kind of message. ``schema``: of the object that it is, without references."""

    name: str
    schema: JsonObject
    grammar: Grammar

    @staticmethod
    def of(name: str, schema: str | JsonObject | SchemaClass[Made]) -> Message:
        """A kind of message from a JSON schema, an object or text, or from a class of pydantic.

        Raises:
            BadRequest: it is no schema, not one of an object, or one that grammars do not take.
        """
        given = schema if isinstance(schema, str | Mapping) else schema.model_json_schema()
        plain = plain_schema(schema_object(given))
        if plain.get("type") != "object":
            raise BadRequest(f"The message {name} is an object with named fields; its schema says otherwise.")
        plain.setdefault("additionalProperties", False)
        return Message(name, plain, Grammar.json(plain))

    def read(self, said: TurnReply) -> Mapping[str, ValueAt]:
        """The fields of what was said: of the last object in it that fits the schema.

        Raises:
            Malformed: none does; the message says why, so that its writer can mend it.
        """
        found = json_objects(said.text)
        if not found:
            raise Malformed("No JSON object could be read.")
        for fields in reversed(found):
            if self._wrong(fields) is None:
                return fields
        wrong = self._wrong(found[-1])
        place = ".".join(map(str, wrong.absolute_path)) if wrong is not None else ""
        raise Malformed(f"{f'{place}: ' if place else ''}{wrong.message if wrong is not None else ''}.")

    def _wrong(self, fields: Mapping[str, ValueAt]) -> ValidationError | None:
        from jsonschema.validators import validator_for  # a tenth of a second, which others' starts spare

        validator: Validator = validator_for(self.schema)(self.schema)
        return next(validator.iter_errors({name: field.value for name, field in fields.items()}), None)


def field_quote(said: TurnReply, field: ValueAt) -> Quote:
    """The words of one field as others read them: its tokens where a model wrote them, its text as it is meant."""
    words = field.value if isinstance(field.value, str) else said.text[field.lo : field.hi]
    return replace(said.quote(field.lo, field.hi), text=words)
