"""Hostile schemas of tools, by name, each with parameters and with how a call ends: its status, and words of its text.

Imports nothing, so that the server of the tests has them too.
"""

from __future__ import annotations

from typing import Any


def of_text(**text: Any) -> dict[str, Any]:
    """The schema of an object with a text of which more is said."""
    return {"type": "object", "properties": {"text": text}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def doubling(levels: int, how: str) -> dict[str, Any]:
    """References of which each level has two to the next."""
    found: dict[str, Any] = {"a0": {"type": "string"}}
    for at in range(levels):
        found[f"a{at + 1}"] = {how: [{"$ref": f"#/$defs/a{at}"}, {"$ref": f"#/$defs/a{at}"}]}
    return of_text(**{"$ref": f"#/$defs/a{levels}"}) | {"$defs": found}


A = {"text": "a"}
LONG = {"text": "a" * 40 + "!"}
DEEP: dict[str, Any] = {}
for _ in range(400):
    DEEP = {"a": DEEP}
BACK_AND_FORTH = (of_text(type="string", pattern="^(a+)+$"), LONG)
TOLD = "nothing is fetched"
HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "back-and-forth": (*BACK_AND_FORTH, "timeout", "within 2 seconds"),
    "names": (
        {"type": "object", "patternProperties": {"^(a+)+$": {}}},
        {"a" * 40 + "!": 1},
        "timeout",
        "within 2 seconds",
    ),
    "other-dialect": (
        of_text(allOf=[{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a|a)*$"}]),
        LONG,
        "timeout",
        "within 2 seconds",
    ),
    "doubling": (doubling(40, "allOf"), A, "timeout", "within 2 seconds"),
    "doubling-any": (doubling(40, "anyOf"), {"text": 1}, "timeout", "within 2 seconds"),
    "file": (of_text(**{"$ref": "file:///etc/passwd"}), A, "error", TOLD),
    "web": (of_text(**{"$ref": "http://127.0.0.1:9/schema.json"}), A, "error", TOLD),
    "beside": (of_text(**{"$ref": "other.json"}) | {"$id": "http://127.0.0.1:9/x/"}, A, "error", TOLD),
    "dynamic": (of_text(**{"$dynamicRef": "http://127.0.0.1:9/#x"}), A, "error", TOLD),
    "nowhere": (of_text(**{"$ref": "#/$defs/none"}), A, "error", "refers to"),
    "round": (of_text(**{"$ref": "#/properties/text"}), A, "error", "refers to itself"),
    "deep": (nested(3000), A, "error", "too deep"),
    "deep-value": (
        {"type": "object", "$defs": {"n": {"properties": {"a": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
        DEEP,
        "error",
        "too deep",
    ),
    "no-pattern": (of_text(type="string", pattern="("), A, "error", "is not a 'regex'"),
    "no-type": (of_text(type="word"), A, "error", "schema is none"),
    "no-dialect": (of_text() | {"$schema": ["x"]}, A, "error", "cannot be used"),
}
LISTED = ["back-and-forth", "doubling", "file", "round"]
"""Those that a server lists in the tests."""
