"""What a model writes in a turn with tools, taken apart into words and calls, as far as they are right.

A call in the form's own marks is held to its schema by a grammar while it is written, and told as it comes. One that
stands bare or in a code fence, as some models write, is held back until it is whole: it is a call if it fits the
schema, and words if not. So is each that follows it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from kvorum.harness.tools.call_form import CallForm
from kvorum.harness.tools.call_reader import Arguments, CallBegins, CallEnds, Read, Said
from kvorum.harness.tools.schema_check import is_plain, misfit
from kvorum.harness.tools.tool import Tool

CHECKED = 1.0
"""Seconds that it may take to see whether a bare call fits; the references of a client's schema may double."""


class TurnReader:
    """Of one reply. ``made`` counts the calls that it has told. ``several``: a turn may have more than one.

    ``slow``: a step may take ``CHECKED`` seconds and the start of a process, for some schema is not plain.
    """

    def __init__(self, form: CallForm, tools: Sequence[Tool], *, several: bool = True) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self.slow = not all(is_plain(tool.parameters) for tool in tools)
        self._reader = form.reader(tools=tools)
        self._several = several
        self._raw: str | None = ""
        """The text behind the bare calls that were told, while what follows may be another; None: it is none."""
        self._end = 0
        """Where that text begins in the turn."""
        self._held: list[Read] = []
        self._words = False
        self.made = 0

    def step(self, text: str, *, last: bool = False) -> tuple[str, list[Read]]:
        """What is new: words, and what was read of calls. ``last``: the reply is over."""
        if self._words:
            return text, []
        found = self._reader.feed(text) + (self._reader.end() if last else [])
        if self._raw is None:
            return self._told(found)
        self._raw += text
        if not self._reader.bare:
            if found:
                self._raw = None
            return self._told(found)
        self._held += found
        return self._bare(self._raw)

    def _bare(self, raw: str) -> tuple[str, list[Read]]:
        """Of bare calls those that are whole and fit; the first that does not, and all behind it, is words."""
        ready: list[Read] = []
        while self._held and not isinstance(self._held[0], Said):
            at = next((at for at, one in enumerate(self._held) if isinstance(one, CallEnds)), None)
            if at is None:
                return self._told(ready)
            call, over = self._held[: at + 1], self._held[at]
            if not self._fits(call) or (not self._several and (self.made or ready)):
                self._words = True
                return raw, self._told(ready)[1]
            assert isinstance(over, CallEnds)
            ready, self._held = ready + call, self._held[at + 1 :]
            raw, self._end = raw[over.end - self._end :], over.end
            self._raw = raw
        if self._held:  # words: what follows them stands in marks
            ready, self._held, self._raw = ready + self._held, [], None
        return self._told(ready)

    def _told(self, found: Sequence[Read]) -> tuple[str, list[Read]]:
        calls: list[Read] = [one for one in found if not isinstance(one, Said)]
        self.made += sum(isinstance(one, CallBegins) for one in calls)
        return "".join(one.text for one in found if isinstance(one, Said)), calls

    def _fits(self, call: Sequence[Read]) -> bool:
        """Whether a whole call is one of a tool, with arguments by its schema."""
        name = next((one.name for one in call if isinstance(one, CallBegins)), "")
        arguments = "".join(one.text for one in call if isinstance(one, Arguments))
        if name not in self._tools:
            return False
        try:
            return not misfit(self._tools[name].parameters, json.loads(arguments), CHECKED)
        except (ValueError, RecursionError, TimeoutError):
            return False
