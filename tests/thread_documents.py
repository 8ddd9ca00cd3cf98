"""Documents of a thread as they are written by heart, and what a run of one notes."""

from __future__ import annotations

from typing import Any

DOCUMENT = (
    '{"reasoning":[{"thought":"plan","subtasks":[{"thought":"a","conclusion":"one"},{"thought":"b [x]",'
    '"conclusion":"2"}],"conclusion":"first"},{"thought":"go","subtasks":[{"thought":"c","subtasks":[{"thought":'
    '"deep","conclusion":"d"}],"conclusion":"e"}],"conclusion":"second"}],"answer":"42"}'
)


def notes(result: Any, kind: str) -> list[dict[str, Any]]:
    return [event for event in result.trace.events if event["event"] == "note" and event["kind"] == kind]


def uses(name: str, parameters: str) -> list[str]:
    """A script that calls a tool; what the runtime writes is left out."""
    return [
        f'{{"reasoning":[{{"thought":"t","tooluse":{{"tool_name":"{name}","parameters":{parameters}',
        ',"conclusion":"c"}],"answer":"7"}',
    ]
