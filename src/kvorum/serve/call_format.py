"""Calls of tools as OpenAI's chat replies write them, whole and in deltas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvorum.harness.tools.call_reader import Arguments, CallBegins, Read, calls_in
from kvorum.jsontypes import Json, JsonObject


def written_calls(read: Sequence[Read]) -> list[Json]:
    """The calls of a message; one that was cut off is not made."""
    return [
        {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, name, arguments, whole in calls_in(read)
        if whole
    ]


def call_pieces(read: Sequence[Read]) -> Iterator[JsonObject]:
    """The deltas: of each call first its id and name, then its arguments as they come."""
    for one in read:
        if isinstance(one, CallBegins):
            function: JsonObject = {"name": one.name, "arguments": ""}
            yield {"index": one.index, "id": one.id, "type": "function", "function": function}
        elif isinstance(one, Arguments):
            yield {"index": one.index, "function": {"arguments": one.text}}
