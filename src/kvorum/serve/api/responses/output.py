"""What a model or a team writes, as output items of a response and the events that tell of them, in their order.

An item's events carry its one id and its place; those of a part also the part's. Numbers of events are given where they
are sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvorum.harness.tools.call_reader import Arguments, CallBegins, CallEnds, Read
from kvorum.jsontypes import Json, JsonObject
from kvorum.serve.api.responses.items import new_id
from kvorum.serve.engine_thread.generator import ReplyPart

ROOT = "/root"
Event = dict[str, Json]
_KINDS = {"message": "output_text", "reasoning": "reasoning_text"}


def _part(kind: str, text: str) -> Event:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


@dataclass(slots=True)
class _Words:
    """An item's place and its text so far."""

    at: int
    text: str = ""


class ResponseOutput:
    """The items so far. ``team``: a program writes; its workers are agents below the root, whose answer is final.
    ``beside``: thoughts and words come side by side, an item each."""

    def __init__(self, team: bool, *, beside: bool = False) -> None:
        self._team, self._beside = team, beside
        self.items: list[dict[str, Json]] = []
        self._open: dict[str, _Words] = {}
        """By kind, the items to which words are still added."""
        self._calls: dict[int, int] = {}  # by a call's index its place among the items
        self._arguments: dict[int, str] = {}

    def take(self, part: ReplyPart) -> Iterator[Event]:
        """What a part of the reply adds."""
        if part.reasoning and self._team:
            for line in part.reasoning.splitlines():
                yield from self._agent(line)
        elif part.reasoning:
            yield from self._say("reasoning", part.reasoning)
        if part.text:
            yield from self._say("message", part.text)
        for read in part.calls:
            yield from self._call(read)

    def end(self, whole: bool) -> Iterator[Event]:
        """The reply is over, ``whole`` or cut. A reply without words and calls is an empty message."""
        if not any(item["type"] in ("message", "function_call") for item in self.items):
            yield from self._say("message", "")
        yield from self._close("completed" if whole else "incomplete")
        for index in list(self._calls):
            yield from self._end_call(index, whole=False)

    def _add(self, item: dict[str, Json]) -> Event:
        self.items.append(item)
        return {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": dict(item)}

    def _done(self, at: int) -> Event:
        return {"type": "response.output_item.done", "output_index": at, "item": dict(self.items[at])}

    def _say(self, kind: str, text: str) -> Iterator[Event]:
        if kind not in self._open:
            if not self._beside:
                yield from self._close("completed")
            item: dict[str, Json] = {"id": new_id(kind), "type": kind, "status": "in_progress", "content": []}
            if kind == "message":
                item |= {"role": "assistant"}
                if self._team:
                    item |= {"phase": "final_answer", "agent": {"agent_name": ROOT}}
            else:
                item |= {"summary": []}
            yield self._add(item)
            self._open[kind] = _Words(len(self.items) - 1)
            yield {"type": "response.content_part.added", **self._place(kind), "part": _part(kind, "")}
        self._open[kind].text += text
        if text:
            delta: Event = {"type": f"response.{_KINDS[kind]}.delta", **self._place(kind), "delta": text}
            yield delta if kind == "reasoning" else {**delta, "logprobs": []}

    def _place(self, kind: str) -> Event:
        at = self._open[kind].at
        return {"item_id": self.items[at]["id"], "output_index": at, "content_index": 0}

    def _close(self, status: str) -> Iterator[Event]:
        """No more words are added to what is open."""
        for kind, words in list(self._open.items()):
            done: Event = {"type": f"response.{_KINDS[kind]}.done", **self._place(kind), "text": words.text}
            yield done if kind == "reasoning" else {**done, "logprobs": []}
            part = _part(kind, words.text)
            yield {"type": "response.content_part.done", **self._place(kind), "part": part}
            self.items[words.at] |= {"status": status, "content": [part]}
            del self._open[kind]
            yield self._done(words.at)

    def _agent(self, line: str) -> Iterator[Event]:
        """A line of a worker's, as a message to the root."""
        name, found, words = line.partition(" | ")
        author = f"{ROOT}/{name}" if found else ROOT
        content: list[Json] = [{"type": "output_text", "text": words if found else line, "annotations": []}]
        item: dict[str, Json] = {
            "id": f"amsg_{secrets.token_hex(16)}",
            "type": "agent_message",
            "author": author,
            "recipient": ROOT,
            "content": content,
            "agent": {"agent_name": author},
        }
        yield self._add(item)
        yield self._done(len(self.items) - 1)

    def _call(self, read: Read) -> Iterator[Event]:
        if isinstance(read, CallBegins):
            yield from self._close("completed")
            item: dict[str, Json] = {
                "id": new_id("function_call"),
                "type": "function_call",
                "status": "in_progress",
                "call_id": read.id,
                "name": read.name,
                "arguments": "",
            }
            self._calls[read.index], self._arguments[read.index] = len(self.items), ""
            yield self._add(item)
        elif isinstance(read, Arguments):
            at = self._calls[read.index]
            self._arguments[read.index] += read.text
            place: Event = {"item_id": self.items[at]["id"], "output_index": at}
            yield {"type": "response.function_call_arguments.delta", **place, "delta": read.text}
        elif isinstance(read, CallEnds):
            yield from self._end_call(read.index, whole=read.whole)

    def _end_call(self, index: int, *, whole: bool) -> Iterator[Event]:
        at, arguments = self._calls.pop(index), self._arguments[index]
        item = self.items[at]
        item |= {"arguments": arguments, "status": "completed" if whole else "incomplete"}
        done: Event = {"item_id": item["id"], "output_index": at, "name": item["name"], "arguments": arguments}
        yield {"type": "response.function_call_arguments.done", **done}
        yield self._done(at)


def last_words(items: Sequence[JsonObject]) -> list[JsonObject]:
    """Those of a response's items that the conversation goes on behind: words, and calls that are whole."""
    calls = [item for item in items if item["type"] == "function_call" and item.get("status") != "incomplete"]
    return [item for item in items if item["type"] == "message" or item in calls]
