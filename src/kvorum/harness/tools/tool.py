"""A tool: a name, what it is for, its parameters as a JSON schema, and what is called.

From a typed Python function (``tool``), from a schema that a client or a server gives (``tool_from_schema``), or
written out as a ``Tool``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.models.tokenizer import Tokenizer
from kvorum.sampling.grammar import Grammar

Function: TypeAlias = Callable[..., Any]
"""What a tool calls; what it returns is given to the model as text, or as JSON where it is no text."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
"""What a tool may be called, so that every client and template takes it."""
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
MAX_DESCRIPTION = 4000
"""Characters of a description that a model is told; what is longer is cut and says so."""
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model may call.

    ``function`` is plain or ``async`` and takes the parameters by name; None: somebody else calls it, as the client of
    a server does. ``repeatable``: it may be called again with the same parameters, for it changes nothing or changes it
    to the same. ``approval``: a person is asked before each call.
    """

    name: str
    description: str
    parameters: JsonObject
    """The JSON schema of the object of all parameters."""
    function: Function | None = None
    repeatable: bool = False
    approval: bool = False

    @property
    def properties(self) -> Mapping[str, JsonObject]:
        """The schema of each parameter that is named, by name."""
        found = self.parameters.get("properties")
        named = found if isinstance(found, Mapping) else {}
        return {key: value for key, value in named.items() if isinstance(value, Mapping)}

    @property
    def schema(self) -> dict[str, Json]:
        """The schema of a ``tooluse`` in a task document; the result is filled in by the runtime."""
        fields: dict[str, Json] = {
            "tool_name": {"const": self.name},
            "parameters": self.parameters,
            "tool_result": {"type": "string"},
        }
        return closed_object(fields, list(fields))

    @property
    def told(self) -> dict[str, Json]:
        """How chat templates and clients are told of it: OpenAI's form of a function."""
        function: dict[str, Json] = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}


def closed_object(properties: Mapping[str, Json], required: Sequence[str]) -> dict[str, Json]:
    """The JSON schema of an object that has nothing but these properties."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def tool(function: Function, *, repeatable: bool = False, approval: bool = False) -> Tool:
    """A tool from a function whose parameters are annotated: str, int, float, bool, list of these, or a Literal.

    Raises:
        BadRequest: a parameter without such an annotation.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError) as error:
        raise BadRequest(f"The types of tool {name} cannot be read: {error}") from error
    properties: dict[str, Json] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        properties[parameter.name] = _schema(hints.get(parameter.name), f"{name}({parameter.name})")
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    summary = (inspect.getdoc(function) or "").split("\n")[0]
    return Tool(name.lstrip("_"), summary, closed_object(properties, required), function, repeatable, approval)


def tool_from_schema(
    name: str,
    description: str = "",
    parameters: Mapping[str, Json] | None = None,
    function: Function | None = None,
    *,
    repeatable: bool = False,
    approval: bool = False,
) -> Tool:
    """A tool from a JSON schema of its parameters, as clients and MCP servers give it; None: it has no parameters.

    An object of named properties that does not say whether it may have others has none: a model could make some up
    without end. A description beyond ``MAX_DESCRIPTION`` characters is cut.

    Raises:
        BadRequest: the name is none that models and clients take, or the schema is none of an object or beyond a limit
            of grammars (``sampling.grammar_limits``). What the library cannot enforce is said when it is compiled.
    """
    if not isinstance(name, str) or not NAME.match(name):
        raise BadRequest(f"A tool's name is 1 to 64 letters, digits, _ or -, not {name!r:.100}.")
    schema = dict(parameters or {})
    if schema.setdefault("type", "object") != "object":
        raise BadRequest(f"The parameters of tool {name} are an object, not {schema['type']!r:.40}.")
    if not {"$ref", "allOf", "anyOf", "oneOf", "patternProperties"} & schema.keys():
        schema.setdefault("properties", {})
        schema.setdefault("additionalProperties", False)
    try:
        Grammar.json(schema)
    except BadRequest as error:
        raise BadRequest(f"The parameters of tool {name}: {error}") from None
    text = description if isinstance(description, str) else ""
    if len(text) > MAX_DESCRIPTION:
        text = f"{text[:MAX_DESCRIPTION]}… (cut)"
    return Tool(name, text, schema, function, repeatable, approval)


def fit_name(name: str) -> str:
    """``name`` in letters, digits, _ and -, at most 64; a longer one is shortened in the middle by a mark of it all."""
    fit = _UNFIT.sub("_", name).strip("_") or "tool"
    if len(fit) > 64:
        fit = f"{fit[:40]}_{sha256(name.encode()).hexdigest()[:8]}_{fit[-14:]}"
    return fit


def harmless_tools(tools: Sequence[Tool], tokenizer: Tokenizer | None) -> list[Tool]:
    """The tools with nothing in their descriptions and schemas that is spelled like a special token of the model."""
    if tokenizer is None:
        return list(tools)
    marks = {
        tokenizer.decode([at], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for at in tokenizer.all_special_ids
    }
    marks = {mark for mark in marks if len(mark) > 1}
    found = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True)))) if marks else None
    if found is None:
        return list(tools)

    def broken(value: Json) -> Json:
        if isinstance(value, str):
            return found.sub(lambda match: f"{match[0][0]} {match[0][1:]}", value)
        if isinstance(value, Mapping):
            return {str(broken(key)): broken(one) for key, one in value.items()}
        return [broken(one) for one in value] if isinstance(value, Sequence) else value

    told = []
    for one in tools:
        parameters = broken(one.parameters)
        assert isinstance(parameters, Mapping)
        told.append(replace(one, description=str(broken(one.description)), parameters=parameters))
    return told


def _schema(hint: object, where: str) -> dict[str, Json]:
    if isinstance(hint, type) and hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) is list and get_args(hint)[0] in _PLAIN:
        return {"type": "array", "items": _schema(get_args(hint)[0], where)}
    raise BadRequest(f"{where}: annotate it as str, int, float, bool, a list of these, or a Literal.")
