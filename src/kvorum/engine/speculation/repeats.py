"""What a text may go on with: as it, or another text that its row sees, went on before behind the same tokens.

A prompt, a document, a tool's result, what the row or another one of its kind has written: whatever stands in the view
is looked at, each block once, as it grows. Costs a few microseconds a token and two entries of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from kvorum.kv import Block, Span, View

LONGEST = 24
"""Tokens back to which two texts are compared."""
_LONG, _SHORT = 4, 2
"""How many tokens must be the same at least: places behind longer repeats are looked at first."""
_PLACES = 8
"""The latest places that are kept of one repeat."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """``ids`` followed, in some text, behind as many tokens as were the same (``length``, at most ``LONGEST``)."""

    ids: Sequence[int] = ()
    length: int = 0


@dataclass(slots=True, eq=False)
class _Index:
    """A block's tokens, and behind which places the same few of them stand."""

    ids: list[int] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)

    def update(self, block: Block) -> _Index:
        ids, places = self.ids, self.places
        del ids[len(block) :]  # a tick that failed was undone
        for token in block.tail(len(ids)):
            ids.append(token)
            for size in (_LONG, _SHORT):
                if len(ids) >= size:
                    found = places.setdefault(hash(tuple(ids[-size:])), [])
                    found.append(len(ids))
                    if len(found) > _PLACES:
                        del found[0]
        return self


class Repeats:
    """Finds repeats in views. Remembers of each block what it has looked at, as long as the block is there."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Block, _Index] = WeakKeyDictionary()

    def find(self, view: View, more: Sequence[int], beside: Iterable[Block], most: int) -> Repeat:
        """What may follow at the end of ``view`` and of ``more`` tokens behind it: at most ``most`` tokens.

        ``beside``: further blocks to look at, which others of the same kind are writing.
        """
        own = view.own
        assert own is not None
        last = [*_last(view), *more][-LONGEST:]
        best, length, source = 0, _SHORT - 1, None
        for block in (own, *beside, *reversed(view.blocks)):
            index = self._index(block)
            for size in (_LONG, _SHORT):
                places = index.places.get(hash(tuple(last[-size:])), ()) if len(last) >= size else ()
                for place in reversed(places):
                    same = _same(index.ids, place, last) if place < len(index.ids) else 0
                    if same > length:
                        best, length, source = place, same, index
                if source is index:
                    break
            if length >= LONGEST:
                break
        if source is None:
            return Repeat()
        text = source.ids[best : best + most]
        if source is self._known.get(own):  # a text that repeats itself goes on into what is supposed
            text += more if best + most > len(source.ids) else []
            while len(text) < most:
                text.append(text[best + len(text) - len(source.ids) - len(more)])
        end = next((at for at, token in enumerate(text) if token < 0), most)  # a latent step has no id
        return Repeat(text[: min(end, most)], length)

    def _index(self, block: Block) -> _Index:
        index = self._known.get(block)
        if index is None:
            index = self._known[block] = _Index()
        return index if len(index.ids) == len(block) else index.update(block)


def _same(ids: Sequence[int], place: int, last: Sequence[int]) -> int:
    """How many tokens before ``place`` are those at the end of ``last``."""
    same, most = 0, min(place, len(last))
    while same < most and ids[place - 1 - same] == last[-1 - same]:
        same += 1
    return same


def _last(view: View) -> list[int]:
    """The last tokens that the view shows."""
    last: list[int] = []
    for item in reversed(view.items):
        if len(last) >= LONGEST:
            break
        if isinstance(item, Span):
            end = item.lo + len(item)
            last = [*item.block.tail(max(item.lo, end - LONGEST + len(last)), end), *last]
    return last
