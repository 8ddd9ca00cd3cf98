"""A memory as tools of a model: it recalls, and writes as far as the policy lets it."""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.harness.memory.memory import Memory
from kvorum.harness.tools.tool import Function, Tool, tool
from kvorum.store.memory.entries import Entry

MOST_RECALLED = 8


def memory_tools(memory: Memory) -> Sequence[Tool]:
    """The tools that the policy of ``memory`` leaves: ``recall`` always; ``remember``, ``update`` and ``forget`` where
    something may be written. What is not allowed or cannot be is an error that the model reads."""

    def recall(query: str) -> str:
        """Find what was remembered, by words. Each line has an id and a text."""
        found = memory.recall(query, limit=MOST_RECALLED)
        if not found.entries:
            return "Nothing is remembered about that."
        more = [f"({found.missing} more were found)"] if found.missing else []
        return "\n".join([*(_line(entry) for entry in found.entries), *more])

    def remember(text: str) -> str:
        """Keep one fact for later, in a sentence that is clear by itself."""
        return f"remembered as {memory.remember(text).id}"

    def update(id: str, text: str) -> str:
        """Put a new text in the place of something that is remembered and not true any more."""
        return f"replaced by {memory.update(id, text).id}"

    def forget(id: str) -> str:
        """Delete something that is remembered, for good."""
        return f"forgotten: {', '.join(entry.id for entry in memory.forget(id))}"

    functions: list[Function] = [recall]
    if memory.policy.writes is not None:
        functions += [remember, update, forget] if memory.policy.over else [remember]
    return [tool(function, repeatable=function is not forget) for function in functions]


def _line(entry: Entry) -> str:
    return f"{entry.id}: {entry.text}"
