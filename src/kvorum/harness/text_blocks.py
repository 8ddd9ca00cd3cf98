"""Texts that come and go in views: each encoded once, behind the same beginning, and put anywhere behind it.

    turn 1   [ opening ][ entry A ][ entry B ][ talk ]
    turn 2   [ opening ][ entry A ][ entry C ][ skill ][ talk ]        B left, C and a skill came: nothing else changes

A text here has read the opening and nothing else, so it is the same wherever it stands; or, ``behind`` others, those
too, for as long as they stand before it. What the first costs in answers is measured in docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.engine.row import Cost, Row
from kvorum.harness.shared_text import load_or_encode, quoted_ids, turn_ids
from kvorum.kv import Block, Gap, Span, View
from kvorum.kv.span import part
from kvorum.runs.run import Run

_SHARE = 2
"""One part in so many of the cache may be held by texts that stand in no view."""


class TextBlocks:
    """The texts of one run. ``opening``: the block that all of them are encoded behind; make one by ``begin``."""

    def __init__(self, run: Run, opening: Block) -> None:
        self.opening = opening
        self._run = run
        self._held: dict[tuple[str, str, tuple[int, ...]], Block] = {}
        self.encoded = self.loaded = 0
        """Tokens that went through the model, and that were on disk."""

    @classmethod
    async def begin(cls, run: Run, rules: str = "") -> TextBlocks:
        """With what the chat template has before a user's words as the opening, ``rules`` in it."""
        first, _ = turn_ids(run, rules)
        if not first:  # a model without a template: texts begin with a line of their own
            first = run.encode("\n")
        opening, _ = await load_or_encode(run, (), first, "opening")
        return cls(run, opening)

    async def block(self, words: str, name: str, label: str = "", behind: Sequence[Block] = ()) -> Block:
        """The sealed block of a text: the one that is held, the one that is kept on disk, or encoded now.

        What is spelled like a special token in it is plain text. ``label``: what it is kept under (``KeptFiles``).
        ``behind``: what it has read beside the opening, in order.

        Raises:
            OutOfPages: no room. Spent: the budget is used up.
        """
        key = (label, words, tuple(block.uid for block in behind))
        block = self._held.pop(key, None)
        if block is None:
            ids = quoted_ids(self._run, words)
            block, was_kept = await load_or_encode(self._run, (self.opening, *behind), ids, name, label)
            if was_kept:
                self.loaded += len(ids)
            else:
                self.encoded += len(ids)
        self._held[key] = block  # used now, so it goes last
        self._let_go()
        return block

    def drop(self, label: str) -> None:
        """Hold what belongs to ``label`` no longer; views that show it keep it."""
        for key in [key for key in self._held if key[0] == label]:
            del self._held[key]

    def _let_go(self) -> None:
        """Hold no more than a share of the cache: the longest unused go, and come back from disk."""
        most = self._run.engine.backend.cache.slots // _SHARE
        held = sum(map(len, self._held.values()))
        while held > most and len(self._held) > 1:
            oldest = next(iter(self._held))
            held -= len(self._held.pop(oldest))


async def encode_again(run: Run, view: View, start: int, name: str) -> tuple[View, int]:
    """The view with all from position ``start`` on encoded anew behind what stands before it now; and how many tokens.

    So nothing of what was taken out before ``start`` is left. Each span comes into a block of its own, and a fresh open
    one follows.
    """
    head, old, _ = view.split(start, len(view))
    spans = [item for item in old if isinstance(item, Span) and len(item)]
    items: list[Span | Gap] = list(head)
    rows: list[Row] = []
    for span in spans:
        block = run.block(name)
        rows.append(Row(View(*items, block), ids=span.block.ids[span.lo : span.lo + len(span)]))
        items.append(Span(block))
    count = sum(row.count for row in rows)
    if count > run.engine.prefill_chunk:
        for row in rows:
            await run.forward([row], [Cost(0)])
    elif rows:
        await run.forward(rows, [Cost(0)] * len(rows))
    return View(*map(part, items), run.block(name)), count
