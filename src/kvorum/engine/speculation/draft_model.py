"""A smaller model of the same vocabulary, asked what a text may go on with.

It has a cache of its own, in which it reads the end of each text that it is asked about, and goes on from what it has
read before: what did not come is taken back, a text that begins as another one does reads on from there. Its tokens are
drawn as the text's own will be, with the same numbers at the same steps, so that two models which agree draw alike.
Where it has no room, does not know a token, or a text has not shown yet that it is long enough, it says nothing. No
token of the text depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from weakref import WeakKeyDictionary

import torch

from kvorum.attention.plan import Planner
from kvorum.backends.backend import Backend, Work
from kvorum.engine.asked import Picked
from kvorum.errors import OutOfPages
from kvorum.kv import Block, PagePool, Span, View
from kvorum.kv.block import unchanged_on_error
from kvorum.models.shape import ModelShape
from kvorum.sampling.sampling import Draw, History, Pick

WINDOW = 1024
"""Tokens at the end of a text that are read at first, and up to half as many less."""
STEP = 128
"""Tokens that are read in one tick: others wait meanwhile."""
READING = 0.08
"""What a token that is read beside others takes, in ticks of one token of this model."""
_SHARED = 32
"""Tokens that two texts must begin with alike for one to go on from the other's."""


@dataclass(frozen=True, slots=True, eq=False)
class Unfinished:
    """A text to go on with: the block ``own`` that it is written to, the ``ids`` that its row sees, what is drawn from
    the row's last token, and how many tokens are asked for."""

    own: Block
    ids: Sequence[int]
    draw: Draw
    count: int


@dataclass(slots=True, eq=False)
class _Read:
    """What was read of a text: its ids from ``start`` on, those of ``before`` in others' blocks, the rest in ``own``.
    Others go on from the first ``kept`` of them."""

    start: int
    before: tuple[Span, ...]
    own: Block
    ids: list[int]
    kept: int

    @property
    def view(self) -> View:
        return View(*self.before, self.own)

    def cut(self, length: int) -> None:
        """Take back what is behind the first ``length`` ids."""
        self.own.truncate(len(self.own) - (len(self.ids) - length))
        del self.ids[length:]

    def first(self, length: int) -> tuple[Span, ...]:
        """The first ``length`` ids, to go on from."""
        self.kept = max(self.kept, length)
        found: list[Span] = []
        for span in (*self.before, Span(self.own, 0, len(self.own))):
            size = min(len(span), length)
            if size:
                found.append(Span(span.block, 0, size))
            length -= size
        return tuple(found)


class DraftModel:
    """A model on its backend, for one of the shape ``beside``. ``ends``: the ids that end that one's texts."""

    def __init__(self, backend: Backend, beside: ModelShape, ends: frozenset[int]) -> None:
        self.cost = _numbers(backend.shape) / _numbers(beside)
        """What a tick of one token takes of it, in ticks of the other one."""
        self.pool = PagePool(backend.cache)
        self._backend, self._planner, self._vocab, self._ends = backend, Planner(), beside.vocab, ends
        self._reads: WeakKeyDictionary[Block, _Read] = WeakKeyDictionary()

    def draft(self, texts: Sequence[Unfinished]) -> list[list[int]]:
        """What each of ``texts`` may go on with: at most as many tokens as are asked for, none where it is not ready.

        Reads at most ``STEP`` tokens of them all, so that a long text takes several ticks to be ready.
        """
        found: list[list[int]] = [[] for _ in texts]
        try:
            self._draft(texts, found)
        except OutOfPages:  # texts that are still there are read again when there is room
            self._reads.clear()
        return found

    def _draft(self, texts: Sequence[Unfinished], found: list[list[int]]) -> None:
        going: list[tuple[int, _Read, Sequence[int]]] = []
        begun: list[tuple[_Read, Sequence[int]]] = []
        room = STEP
        for at, text in enumerate(texts):
            if not room or (read := self._reading(text)) is None:
                continue
            missing = text.ids[read.start + len(read.ids) :][:room]
            room -= len(missing)
            if read.start + len(read.ids) + len(missing) == len(text.ids):
                going.append((at, read, missing))
            else:
                begun.append((read, missing))
        if begun:
            self._forward(begun, [None] * len(begun))
        while going:
            draws = [_further(texts[at].draw, found[at]) for at, _, _ in going]
            picks = self._forward([(read, ids) for _, read, ids in going], draws)
            still: list[tuple[int, _Read, Sequence[int]]] = []
            for (at, read, _), pick in zip(going, picks, strict=True):
                if not isinstance(pick, Pick) or pick.id in self._ends or pick.id >= self._vocab:
                    continue
                found[at].append(pick.id)
                if len(found[at]) < texts[at].count:
                    still.append((at, read, [pick.id]))
            going = still

    def _reading(self, text: Unfinished) -> _Read | None:
        """What was read of the text, as far as it holds; at least its last id was not. None: it is not to be read."""
        ids, longest = text.ids, self._backend.shape.longest
        read = self._reads.get(text.own)
        if read is not None:
            same = min(_same(read.ids, ids[read.start :]), len(ids) - read.start - 1)
            fits = longest is None or len(ids) - read.start + text.count <= longest
            if same >= read.kept and fits:
                read.cut(same)
            else:
                read = None
        if read is None:
            read = self._begin(text, longest)
        missing = len(ids) - read.start - len(read.ids)
        worth = missing <= STEP // 4 or missing * READING * self.cost <= len(text.own)
        unread = ids[len(ids) - missing :]
        if not worth or min(unread) < 0 or max(unread) >= self._backend.shape.vocab:  # a latent step has no id
            return None
        self._reads[text.own] = read
        return read

    def _begin(self, text: Unfinished, longest: int | None) -> _Read:
        """Read a text that was not, from where it is like another one."""
        most = WINDOW if longest is None else min(WINDOW, longest // 2)
        start = -(-max(0, len(text.ids) - most) // (most // 2)) * (most // 2)
        start = min(start, len(text.ids) - 1)
        ids = list(text.ids[start:])
        like = [(_same(read.ids, ids), read) for read in self._reads.values() if read.start == start]
        same, best = max(like, key=lambda one: one[0], default=(0, None))
        same = min(same, len(ids) - 1)
        block = Block(self.pool)
        if best is None or same < _SHARED:
            return _Read(start, (), block, [], 0)
        return _Read(start, best.first(same), block, ids[:same], same)

    def _forward(self, rows: Sequence[tuple[_Read, Sequence[int]]], draws: Sequence[Draw | None]) -> Sequence[Picked]:
        """Read ``ids`` behind each and draw."""
        with unchanged_on_error([read.own for read, _ in rows]):
            for read, ids in rows:
                read.own.append(ids)
            counts = [len(ids) for _, ids in rows]
            done = self._backend.forward(
                Work(
                    plan=self._planner.plan([read.view for read, _ in rows], counts),
                    ids=[token for _, ids in rows for token in ids],
                    embeds=[],
                    wanted=torch.tensor(list(accumulate(counts))) - 1,
                    draws=lambda: draws,
                )
            )
        for read, ids in rows:
            read.ids.extend(ids)
        return done.picks


def _further(draw: Draw, ids: Sequence[int]) -> Draw:
    """What will be drawn from the row behind ``ids``, without the grammar, which is asked later."""
    sampling = draw.sampling if draw.sampling.grammar is None else replace(draw.sampling, grammar=None)
    past = draw.history
    if past is not None and ids:
        past = History([*past.seen, *ids], [*past.written, *ids], past.breakers)
    return replace(draw, sampling=sampling, step=draw.step + len(ids), telling=False, allowed=None, history=past)


def _numbers(shape: ModelShape) -> int:
    """How many numbers a tick reads of a model's weights, about: as if the inner width were four times the outer."""
    found = shape.vocab * shape.hidden
    for layer in shape.layers:
        heads = (layer.q_heads + layer.kv_heads) * (layer.k_dim + layer.v_dim)
        found += shape.hidden * (heads + 12 * shape.hidden)
    return found


def _same(some: Sequence[int], others: Sequence[int]) -> int:
    """How many ids both begin with alike."""
    most = min(len(some), len(others))
    if some[:most] == others[:most]:
        return most
    return next(at for at in range(most) if some[at] != others[at])
