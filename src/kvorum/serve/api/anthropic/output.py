"""What a model writes, as blocks of a message's content and the events of their making."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kvorum.harness.tools.call_reader import Arguments, CallBegins, CallEnds, Read
from kvorum.jsontypes import Json
from kvorum.serve.engine_thread.generator import ReplyPart

Event = dict[str, Json]
_DELTAS = {"text": "text_delta", "thinking": "thinking_delta"}


class MessageOutput:
    """The blocks so far, and why the reply ended."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self.content: list[dict[str, Json]] = []
        self._open: str | None = None
        """The type of the last block while it grows."""
        self._text = ""
        self.reason: str | None = None
        self.stopped: str | None = None

    def take(self, part: ReplyPart) -> Iterator[Event]:
        """What a part of the reply adds."""
        if part.reasoning:
            yield from self._say("thinking", part.reasoning)
        if part.text:
            yield from self._say("text", part.text)
        for read in part.calls:
            yield from self._call(read)
        if part.finish is not None:
            self._finish(part)

    def end(self) -> Iterator[Event]:
        """The reply is over. One without words and tools is an empty text."""
        yield from self._close()
        if not any(block["type"] != "thinking" for block in self.content):
            yield from self._say("text", "")
            yield from self._close()

    def _finish(self, part: ReplyPart) -> None:
        last = part.tokens[-1].finish if part.tokens else None
        used = any(block["type"] == "tool_use" for block in self.content)
        if part.finish == "length":
            self.reason = "max_tokens"
        elif used:
            self.reason = "tool_use"
        elif last == "stop":
            self.reason = "stop_sequence"
            self.stopped = self._stops[0] if len(self._stops) == 1 else None
        else:
            self.reason = "end_turn"

    def _begin(self, block: dict[str, Json]) -> Event:
        self.content.append(block)
        self._open, self._text = str(block["type"]), ""
        return {"type": "content_block_start", "index": len(self.content) - 1, "content_block": dict(block)}

    def _delta(self, delta: dict[str, Json]) -> Event:
        return {"type": "content_block_delta", "index": len(self.content) - 1, "delta": delta}

    def _say(self, kind: str, text: str) -> Iterator[Event]:
        if self._open != kind:
            yield from self._close()
            extra: dict[str, Json] = {"signature": ""} if kind == "thinking" else {}
            yield self._begin({"type": kind, kind: "", **extra})
        self._text += text
        if text:
            yield self._delta({"type": _DELTAS[kind], kind: text})

    def _call(self, read: Read) -> Iterator[Event]:
        if isinstance(read, CallBegins):
            yield from self._close()
            number = f"toolu_{read.id.removeprefix('call_')}"
            yield self._begin({"type": "tool_use", "id": number, "name": read.name, "input": {}})
        elif isinstance(read, Arguments):
            self._text += read.text
            yield self._delta({"type": "input_json_delta", "partial_json": read.text})
        elif isinstance(read, CallEnds):
            yield from self._close()

    def _close(self) -> Iterator[Event]:
        if self._open is None:
            return
        if self._open == "tool_use":
            self.content[-1]["input"] = _object(self._text)
        else:
            self.content[-1][self._open] = self._text
        self._open = None
        yield {"type": "content_block_stop", "index": len(self.content) - 1}


def _object(text: str) -> Json:
    """The arguments of a call; what was cut off before they were whole is none."""
    try:
        found: Json = json.loads(text or "{}")
    except ValueError:
        return {}
    return found
