"""When an answer begins that one worker writes while others work: its first word, and its first right sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kvorum.lab.measure.worker_text import WorkerText
from kvorum.store.events import Event
from kvorum.tasks.item import Item

_END = re.compile(r"[.!?][)\"'*]*(?=\s)|\n")
"""Where a sentence or a line ends; a point inside a number ends nothing."""


def first_words(events: Sequence[Event], item: Item, speaker: int | None) -> dict[str, float | None]:
    """``first_word`` and ``first_right``, in ticks from the beginning of the run, all that encode or decide included.

    The latter is the tick with which the first sentence or line is whole that makes what is written so far worth more
    than an empty answer; at the last of them, the end of the text. None where there is none, and both None without a
    ``speaker``, the worker whose words are the answer as they are written.
    """
    if speaker is None:
        return {"first_word": None, "first_right": None}
    text = _spoken(events, speaker)
    began = re.search(r"\S", text.text)
    blank = item.score("").soft
    right = next((end for end in _ends(text.text) if item.score(text.text[:end]).soft > blank), None)
    return {
        "first_word": None if began is None else float(text.when(began.start())),
        "first_right": None if right is None else float(text.when(right - 1)),
    }


def _spoken(events: Sequence[Event], speaker: int) -> WorkerText:
    """What the speaker wrote, with the tick of each character among all forwards of the run, counted from 1."""
    text, name, ticks = WorkerText(""), "", 0
    for event in events:
        if event["event"] == "start":
            name = event["workers"][speaker]
        elif event["event"] == "forward":
            ticks += 1
        elif event["event"] == "tick":
            ticks += 1
            for row in event["rows"]:
                if row["worker"] == name:
                    text.add(ticks, row["text"])
    return text


def _ends(text: str) -> Iterator[int]:
    """Behind each sentence or line, and behind all."""
    yield from (match.end() for match in _END.finditer(text))
    if text:
        yield len(text)
