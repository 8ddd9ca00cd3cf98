"""Speculation: what is supposed of the rows of a tick, and what of it came.

Only that is computed ahead which nobody sees and which does not depend on what others are about to write: a row beside
whose own block, or before it, somebody of the tick is writing supposes nothing. What comes is the row's token as it
would have been anyway, drawn from the same logits; where those depend on the rows of a tick, there is no speculation
(``Backend.lacks_speculation``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from kvorum.engine.row import CheckedRow
from kvorum.engine.speculation.depth import CERTAIN, COST, CROWD, DEEPEST, DRAFTED, Depth, Record, depth
from kvorum.engine.speculation.draft_model import DraftModel, Unfinished
from kvorum.engine.speculation.repeats import LONGEST, Repeats
from kvorum.kv import Block
from kvorum.models.shape import ModelShape

_REST, _LONGEST_REST = 64, 1024
"""Tokens of a text for which a smaller model that does not pay is not asked: at first, and after several times."""
_LONG_ROW = 8
"""Rows of more known tokens suppose nothing: prompts, which take long enough as it is."""


@dataclass(slots=True, eq=False)
class _Text:
    """What is remembered of a text that a row writes: its record, and what is supposed to come, with the lengths of the
    repeats that say so.

    ``unsteady``: what it sees changes while it is written. ``open``: something may be supposed of it in this tick, at
    most ``most`` tokens. ``rest``: for how many more tokens no smaller model is asked; ``next_rest``: the next time.
    """

    record: Record = field(default_factory=Record)
    ids: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    unsteady: bool = False
    open: bool = False
    most: int = DEEPEST
    rest: int = 0
    next_rest: int = _REST

    def came(self, ids: Sequence[int]) -> None:
        """The row goes on with ``ids``."""
        self.rest = max(0, self.rest - len(ids))
        if self.ids and len(ids) == 1:
            right = ids[0] == self.ids[0]
            self.record.learn(self.lengths[0], right)
            keep = slice(1, None) if right else slice(0, 0)
            self.ids, self.lengths = self.ids[keep], self.lengths[keep]
        elif len(ids) > 1:
            self.ids, self.lengths = [], []

    def rests(self) -> None:
        """A smaller model does not pay here; after a while it is tried again, as if nothing were known of it."""
        self.rest, self.next_rest = self.next_rest, min(2 * self.next_rest, _LONGEST_REST)
        self.record.drafted = self.record.agreed = 0.0


class Speculation:
    """Says of the rows of each tick which were computed ahead, and what to suppose of the others.

    ``draft``: a smaller model that is asked, too; None: none is.
    """

    def __init__(self, shape: ModelShape) -> None:
        self._longest, self._most = shape.max_positions, shape.max_tokens
        self.draft: DraftModel | None = None
        self._repeats = Repeats()
        self._texts: WeakKeyDictionary[Block, _Text] = WeakKeyDictionary()

    def known(self, rows: Sequence[CheckedRow]) -> list[bool]:
        """Which of the rows were computed ahead; what was supposed of the others is forgotten."""
        writing = {row.own.uid for row in rows}
        found = []
        for row in rows:
            text, own = self._texts.get(row.own), row.own
            if text is not None:
                text.came(row.ids)
            ahead, there = own.ahead, False
            if ahead is not None and row.count == 1 and row.embeds is None and not row.every and row.owners is None:
                quiet = not any(block.uid in writing and block is not own for block in row.view.blocks)
                shown = row.view.shown
                there = quiet and own.has_ahead(row.ids[0], shown)
                if text is not None and not (quiet and shown == ahead.shown):
                    text.unsteady = True
            if ahead is not None and not there:
                own.drop_ahead()
            found.append(there)
        return found

    def suppose(self, rows: Sequence[CheckedRow], known: Sequence[bool]) -> list[list[int]]:
        """The tokens to compute ahead, of each row; its own stand in its block already.

        To be asked before masks are made, for it asks grammars.
        """
        supposed: list[list[int]] = [[] for _ in rows]
        if len(rows) > CROWD or (
            self._most is not None and sum(row.count for row in rows) + CROWD * DEEPEST > self._most
        ):
            return supposed
        seen: dict[int, int] = {}
        for row in rows:
            for block in row.view.blocks:
                seen[block.uid] = seen.get(block.uid, 0) + 1
        units: dict[int | None, list[int]] = {}
        for at, row in enumerate(rows):
            units.setdefault(row.unit, []).append(at)
        unfinished: dict[int, Unfinished] = {}
        for mine in units.values():
            computed = [at for at in mine if not known[at]]
            texts = {at: self._text(rows, at, seen, mine) for at in computed}
            chances = [text.record.chances(text.lengths) for text in texts.values()]
            ready = [0 if (ahead := rows[at].own.ahead) is None else ahead.left for at in mine if known[at]]
            found = depth(chances, ready, len(rows))
            drafted = self._drafted(list(texts.values()), ready, len(rows))
            for at, text in texts.items():
                if drafted.gain > found.gain and (draw := rows[at].draw) is not None:
                    unfinished[at] = Unfinished(rows[at].own, rows[at].view.ids, draw, drafted.tokens)
                else:
                    supposed[at] = text.ids[: found.tokens]
                    keep = slice(0, max(1, found.tokens))
                    text.ids, text.lengths = text.ids[keep], text.lengths[keep]
        if unfinished and self.draft is not None:
            drafts = self.draft.draft(list(unfinished.values()))
            for at, ids in zip(unfinished, drafts, strict=True):
                text, matcher = self._texts[rows[at].own], rows[at].matcher
                text.ids = ids if matcher is None or not ids else ids[: matcher.follows(ids)]
                text.lengths = [DRAFTED] * len(text.ids)
                supposed[at] = list(text.ids)
        return supposed

    def _drafted(self, texts: Sequence[_Text], ready: Sequence[int], rows: int) -> Depth:
        """How many tokens to ask the smaller model for, of rows that wait for each other."""
        if self.draft is None or not all(text.open and not text.rest for text in texts):
            return Depth(0, 0.0)
        step = self.draft.cost * (1 + COST * (rows - 1)) / rows * len(texts)
        found = depth([text.record.chances([DRAFTED] * text.most) for text in texts], ready, rows, step)
        if not found.tokens:
            for text in texts:
                if text.record.drafted > 1:
                    text.rests()
        return found

    def _text(self, rows: Sequence[CheckedRow], at: int, seen: dict[int, int], mine: Sequence[int]) -> _Text:
        """What is remembered of a row's text, with all that may be supposed of it now."""
        row = rows[at]
        text = self._texts.get(row.own)
        if text is None:
            text = self._texts[row.own] = _Text()
        text.ids, text.lengths, text.open = [], [], False
        plain = row.draw is not None and row.embeds is None and row.count <= _LONG_ROW
        if text.unsteady or not plain or seen[row.own.uid] > 1 or self._sees_writing(rows, row):
            return text
        most = DEEPEST
        if self._longest is not None:
            most = min(most, self._longest - len(row.view))
        if most <= 0:
            return text
        text.open, text.most = True, most
        forced = [] if row.matcher is None else row.matcher.forced()[:most]
        beside = [rows[other].own for other in mine if other != at]
        repeat = self._repeats.find(row.view, forced, beside, most)
        ids = [*forced, *repeat.ids][:most]
        if row.matcher is not None and ids:
            ids = ids[: row.matcher.follows(ids)]
        text.ids = ids
        lengths = [CERTAIN] * len(forced) + [min(repeat.length + n, LONGEST) for n in range(len(repeat.ids))]
        text.lengths = lengths[: len(ids)]
        return text

    def _sees_writing(self, rows: Sequence[CheckedRow], row: CheckedRow) -> bool:
        """Whether it sees what another row of the tick writes."""
        if len(rows) == 1:
            return False
        writing = {other.own.uid for other in rows if other is not row}
        return any(block.uid in writing for block in row.view.blocks)
