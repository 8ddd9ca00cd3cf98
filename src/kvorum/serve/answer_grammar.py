"""The grammar of a reply, from the fields of a request that ask for one (``request_models.answer_form``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.sampling.grammar import Grammar
from kvorum.serve.errors import ApiError
from kvorum.serve.request_models.answer_form import AnswerForm, ResponseFormat, SchemaForm, StructuredOutputs

OBJECT: dict[str, Json] = {"type": "object"}
"""The schema of ``json_object``."""
Make = Callable[[], Grammar]


def asked_grammar(form: AnswerForm) -> tuple[Grammar, str] | None:
    """What the reply is to be held to, and the field that says so; None: to nothing.

    Raises:
        ApiError: a form that is not known here, something that is no schema or pattern, or two fields at once.
    """
    asked = list(_asked(form))
    if not asked:
        return None
    if len(asked) > 1:
        message = f"A reply is held to one form; {asked[0][0]} and {asked[1][0]} ask for two."
        raise ApiError(400, message, param=asked[1][0])
    return made_grammar(*asked[0])


def made_grammar(place: str, make: Make) -> tuple[Grammar, str]:
    """What ``make`` makes of the field ``place``, and that field. Raises ApiError for what makes none."""
    try:
        return make(), place
    except BadRequest as error:
        raise ApiError(400, str(error), param=place) from error


def _asked(form: AnswerForm) -> Iterator[tuple[str, Make]]:
    """Each field that asks for a form, and what makes the grammar."""
    if form.response_format is not None and form.response_format.type != "text":
        yield "response_format", partial(_response_format, form.response_format)
    if form.structured_outputs is not None:
        yield from _structured(form.structured_outputs)
    if form.grammar:
        yield "grammar", partial(Grammar.gbnf, form.grammar)
    if form.json_schema is not None:
        yield "json_schema", partial(_schema, form.json_schema)
    if form.guided_json is not None:
        yield "guided_json", partial(_schema, form.guided_json)
    if form.guided_regex:
        yield "guided_regex", partial(Grammar.regex, form.guided_regex)
    if form.guided_choice is not None:
        yield "guided_choice", partial(Grammar.choice, form.guided_choice)
    if form.guided_grammar:
        yield "guided_grammar", partial(Grammar.gbnf, form.guided_grammar)


def _response_format(asked: ResponseFormat) -> Grammar:
    if asked.type == "json_object":
        return Grammar.json(OBJECT if asked.given is None else asked.given)
    if asked.type == "json_schema":
        given = asked.given if asked.json_schema is None else asked.json_schema.given
        if asked.json_schema is None and given is None:
            raise BadRequest("A response format of type json_schema needs json_schema with a schema in it.")
        return Grammar.json(OBJECT if given is None else given)
    if asked.type == "regex" and asked.pattern:
        return Grammar.regex(asked.pattern)
    if asked.type == "grammar" and asked.grammar:
        return Grammar.gbnf(asked.grammar)
    raise BadRequest(
        f"There is no response format {asked.type[:40]!r} here; there are: text, json_object, json_schema, "
        "regex (with pattern) and grammar (with grammar)."
    )


def _structured(asked: StructuredOutputs) -> Iterator[tuple[str, Make]]:
    where = "structured_outputs"
    if asked.json_form is not None:
        yield f"{where}.json", partial(_schema, asked.json_form)
    if asked.regex:
        yield f"{where}.regex", partial(Grammar.regex, asked.regex)
    if asked.choice is not None:
        yield f"{where}.choice", partial(Grammar.choice, asked.choice)
    if asked.grammar:
        yield f"{where}.grammar", partial(Grammar.gbnf, asked.grammar)
    if asked.json_object:
        yield f"{where}.json_object", partial(Grammar.json, OBJECT)
    if asked.structural_tag is not None:
        message = "Structural tags are not taken here; ask for tools, json, regex, choice or grammar."
        raise ApiError(400, message, param=f"{where}.structural_tag")


def _schema(given: SchemaForm) -> Grammar:
    """Of a schema that may be text, as vLLM's clients send it."""
    if not isinstance(given, str):
        return Grammar.json(given)
    try:
        schema = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The schema is no JSON: {error}.") from None
    return Grammar.json(schema)
