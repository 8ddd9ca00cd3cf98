"""A growing text of which parts leave the cache: an append-only log of ids, and the view of what is live.

Four edits: ``open_block`` (a list gets blocks of its own, so that its pages return when it goes), ``prune``, ``undo``
and ``adopt`` (join a fork). Only mode "reencode" and stubs send tokens through the model; the rest moves no tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from kvorum.harness.text_blocks import encode_again
from kvorum.kv import Gap, Span, View
from kvorum.kv.span import Items
from kvorum.runs.run import Run

Mode = Literal["reencode", "splice", "gap", "none"]


def called(mode: Mode) -> Literal["hidden", "forgotten"]:
    """What is gone is called so in a trace: forgotten where what followed was encoded again, else hidden."""
    return "forgotten" if mode == "reencode" else "hidden"


@dataclass(slots=True, eq=False)
class Cut:
    """Log tokens ``lo`` to ``hi`` that are not live, and the ``width`` positions that stand in their place.

    ``items`` is what stood there, kept for ``undo`` (empty: only the ids are known); ``inner`` the cuts it swallowed.
    """

    lo: int
    hi: int
    width: int
    items: Items = ()
    inner: list[Cut] = field(default_factory=list)

    def moved(self, by: int) -> Cut:
        """The same cut in a log that has ``by`` more tokens before it."""
        return Cut(self.lo + by, self.hi + by, self.width, self.items, [cut.moved(by) for cut in self.inner])


class Live:
    """A log and its live part. The last ``pending`` tokens of the log are not in the cache yet."""

    def __init__(self, run: Run, name: str, view: View) -> None:
        self.run, self.name = run, name
        self.view = view
        self.base = len(view)
        self.log: list[int] = []
        self.pending = 0
        self.cuts: list[Cut] = []
        self.reencoded = 0

    @property
    def tokens(self) -> int:
        """Live tokens, what precedes the document included and gaps left out."""
        return sum(len(item) for item in self.view.items if isinstance(item, Span)) + self.pending

    def position(self, at: int) -> int:
        """Where log token ``at`` stands in the view."""
        return self.base + at - sum(cut.hi - cut.lo - cut.width for cut in self.cuts if cut.hi <= at)

    def open_block(self) -> None:
        """What comes next goes to a fresh block."""
        own = self.view.own
        if own is None or len(own):
            self.view = self.view.fork(len(self.view), self.run.block(self.name))

    async def prune(
        self,
        ranges: Sequence[tuple[int, int]],
        mode: Mode,
        stub: Sequence[int] = (),
        keep: bool = True,
        *,
        encoded: Span | None = None,
    ) -> list[Cut]:
        """Take the log ranges out of the view; each must be in the cache. One not longer than the stub stays.

        "reencode" encodes what follows the first range anew, "splice" moves it up as it is, "gap" leaves it where
        it is. ``stub`` ids stand in the place of each range, encoded there, or as ``encoded`` shows them, which takes
        no tick. With ``keep`` the keys and values stay for ``undo``.
        """
        made: list[Cut] = []
        for lo, hi in sorted(ranges):
            if hi - lo <= len(stub):
                continue
            start, end = self.position(lo), self.position(hi)
            head, gone, tail = self.view.split(start, end)
            left: list[Span | Gap] = [encoded or await self._encode(head, stub)] if stub else []
            if mode == "gap":
                left.append(Gap(end - start - len(stub)))
            inner = [cut for cut in self.cuts if lo <= cut.lo and cut.hi <= hi]
            made.append(Cut(lo, hi, sum(map(len, left)), gone if keep else (), inner))
            self._replace(inner, [made[-1]])
            self.view = View(*head, *left, *tail)
        if mode == "reencode" and made:
            await self._again(self.position(made[0].lo) + len(stub))
        return made

    async def undo(self, cut: Cut, mode: Mode) -> None:
        """Put a cut's tokens back.

        Their old keys and values where they were kept (cuts inside them stay cut), else all of them encoded anew; with
        "reencode" they and what follows are encoded anew in any case.
        """
        start = self.position(cut.lo)
        head, _, tail = self.view.split(start, start + cut.width)
        items, inner = cut.items, cut.inner
        if not items:
            items, inner = (await self._encode(head, self.log[cut.lo : cut.hi]),), []
            self.reencoded += cut.hi - cut.lo
        self._replace([cut], inner)
        self.view = View(*head, *items, *tail)
        if mode == "reencode":
            await self._again(start)

    def _replace(self, old: list[Cut], new: list[Cut]) -> None:
        self.cuts = sorted([cut for cut in self.cuts if cut not in old] + new, key=lambda cut: cut.lo)

    def adopt(self, child: Live) -> int:
        """Join a fork of this document: its live part and its log follow ours. Returns where its log begins."""
        own = child.view.split(child.base, len(child.view))[1]
        start = len(self.log)
        self.cuts += [cut.moved(start) for cut in child.cuts]
        self.log += child.log
        self.reencoded += child.reencoded
        self.view = View(*self.view.fork(len(self.view)).items, *own)
        return start

    async def _encode(self, head: Sequence[Span | Gap], ids: Sequence[int]) -> Span:
        block = self.run.block(f"{self.name}.stub")
        await self.run.prefill(View(*head, block), ids)
        return Span(block, 0, len(ids))

    async def _again(self, start: int) -> None:
        """Encode what stands from position ``start`` on anew, in one tick: a row per span, which sees those before."""
        self.view, count = await encode_again(self.run, self.view, start, self.name)
        self.reencoded += count
