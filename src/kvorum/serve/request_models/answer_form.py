"""What a reply is held to: the fields of OpenAI, llama-server and vLLM that say so, each as its clients send it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue, StrictBool

from kvorum.serve.request_models.base import RequestModel, StrictRequest, Words

SchemaValue = dict[str, JsonValue] | StrictBool
"""A JSON schema."""
SchemaForm = SchemaValue | Words
"""A JSON schema that may be text, as vLLM's clients send it."""
Options = Annotated[list[Annotated[str, Field(max_length=65536)]], Field(max_length=10_000)]


class NamedSchema(RequestModel):
    """OpenAI's ``json_schema`` of a response format. Whether ``strict`` or not, the reply is held to the schema."""

    name: str | None = None
    description: str | None = None
    given: SchemaValue | None = Field(None, alias="schema")
    strict: StrictBool | None = None


class ResponseFormat(RequestModel):
    """``response_format``: ``text``, ``json_object`` (with llama-server's ``schema``), ``json_schema``; ``regex`` with
    a ``pattern`` and ``grammar`` with a GBNF are our own."""

    type: str = Field(max_length=80)
    json_schema: NamedSchema | None = None
    given: SchemaValue | None = Field(None, alias="schema")
    pattern: Words | None = None
    grammar: Words | None = None


class StructuredOutputs(RequestModel):
    """vLLM's ``structured_outputs``: one of these."""

    json_form: SchemaForm | None = Field(None, alias="json")
    regex: Words | None = None
    choice: Options | None = None
    grammar: Words | None = None
    json_object: StrictBool | None = None
    structural_tag: JsonValue = None


class AnswerForm(StrictRequest):
    """What of a request's body says how its reply is to be; at most one of these fields may.

    ``grammar`` and ``json_schema`` are llama-server's, ``structured_outputs`` and the older ``guided_*`` vLLM's.
    """

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    grammar: Words | None = None
    json_schema: SchemaForm | None = None
    guided_json: SchemaForm | None = None
    guided_regex: Words | None = None
    guided_choice: Options | None = None
    guided_grammar: Words | None = None
