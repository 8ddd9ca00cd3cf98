"""Random programs over views: made on a live engine, written down as plain data, played again anywhere.

A script names blocks by number and says what each row sees in the oracle's terms, so the engine that made it, another
engine and the oracle all get the same program. Covers ragged rows, growth in turns, forks at any token, splices, gaps,
hidden blocks, moves, undone edits, composed views, placed spans (siblings at one position, and empty positions) and
latent rows. Says nothing about what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from kvorum import Block, Engine, Gap, Row, Span, View
from kvorum.errors import SeenTwice
from oracle import Items, Oracle

Draw = Callable[[Any], Any]
Rows = list[tuple[Items, "list[int] | Tensor"]]


@dataclass
class Script:
    """Steps ("tick", rows) and ("move", spans, into). ``latent``: how many tokens were embeddings."""

    steps: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def ticks(self) -> list[Rows]:
        return [step[1] for step in self.steps if step[0] == "tick"]


@dataclass
class Played:
    """Per tick, per row: logits of all new tokens ``[tokens, vocab]``, and the last hidden state ``[hidden]``."""

    logits: list[list[Tensor]] = field(default_factory=list)
    hidden: list[list[Tensor]] = field(default_factory=list)


def solve(script: Script, model: Any) -> Played:
    """What the oracle says."""
    oracle = Oracle(model)
    numbers = []
    for step in script.steps:
        if step[0] == "tick":
            numbers.append(oracle.tick(step[1]))
        else:
            oracle.move(step[1], step[2])
    solved = oracle.solve()
    return Played(
        [[solved.logits[new] for new in tick] for tick in numbers],
        [[solved.hidden[new[-1]] for new in tick] for tick in numbers],
    )


def play(
    engine: Engine,
    script: Script,
    *,
    order: Callable[[int], list[int]] = lambda rows: list(range(rows)),
    others: Callable[[], list[Row]] = list,
) -> Played:
    """Play a script on an engine: rows in another ``order``, ``others`` rows in the same ticks."""
    blocks: dict[Any, Block] = {}
    played = Played()

    def block(name: Any) -> Block:
        return blocks.setdefault(name, engine.block(str(name))) if name not in blocks else blocks[name]

    for step in script.steps:
        if step[0] == "move":
            engine.compact([Span(block(name), lo, hi) for name, lo, hi in step[1]], block(step[2]))
            continue
        rows = []
        for items, tokens in step[1]:
            view = View(*(Gap(i) if isinstance(i, int) else Span(block(i[0]), *i[1:]) for i in items))
            rows.append(Row(view, embeds=tokens) if isinstance(tokens, Tensor) else Row(view, ids=tokens))
        places, more = order(len(rows)), others()
        out = engine.forward([rows[at] for at in places] + more, hidden=True, every=True)
        _record(played, out, [places.index(at) for at in range(len(rows))])
    return played


def _record(played: Played, out: Any, places: Sequence[int]) -> None:
    played.logits.append([out.every[at] for at in places])
    played.hidden.append([out.hidden[at] for at in places])


class Maker:
    """Makes a random program by running it."""

    OPS: tuple[str, ...] = (
        *("tick",) * 6,
        *("fork", "place") * 2,
        "splice",
        "gap",
        "hide",
        "move",
        "undo",
        "compose",
        "enter",
    )

    def __init__(self, draw: Draw, engine: Engine, *, vocab: int, width: int) -> None:
        self.draw, self.engine, self.vocab, self.width = draw, engine, vocab, width
        self.script, self.played = Script(), Played()
        self.blocks: list[Block] = []
        self.views: list[View] = []
        self.old: list[View] = []

    def make(self, steps: int) -> None:
        """Run ``steps`` drawn steps between two ticks of everyone."""
        self.enter()
        self.enter()
        self.tick()
        for _ in range(steps):
            getattr(self, self.draw(st.sampled_from(self.OPS)))()
        self.tick()

    def tick(self) -> None:
        writers: dict[int, View] = {}
        for at in self.draw(st.permutations(range(len(self.views)))):
            view = self.views[at]
            assert view.own is not None
            if len(view) < 100 and (len(writers) == 0 or self.draw(st.integers(0, 3))):
                writers.setdefault(view.own.uid, view)
        rows, told = [], []
        for view in writers.values():
            count = self.draw(st.sampled_from((1, 1, 1, 2, 3, 5)))
            if self.draw(st.integers(0, 5)) == 0:
                seed = torch.Generator().manual_seed(self.draw(st.integers(0, 99)))
                embeds = torch.randn(count, self.width, generator=seed, dtype=torch.float64)
                rows.append(Row(view, embeds=embeds))
                told.append((self.items(view), embeds))
            else:
                ids = self.draw(st.lists(st.integers(0, self.vocab - 1), min_size=count, max_size=count))
                rows.append(Row(view, ids=ids))
                told.append((self.items(view), ids))
        if rows:
            self.script.steps.append(("tick", told))
            _record(self.played, self.engine.forward(rows, hidden=True, every=True), range(len(rows)))

    def items(self, view: View) -> Items:
        """A view in the oracle's terms."""
        names = {block.uid: name for name, block in enumerate(self.blocks)}
        return [(names[i.block.uid], i.lo, i.hi, i.at) if isinstance(i, Span) else i.length for i in view.items]

    def fresh(self) -> Block:
        self.blocks.append(self.engine.block())
        return self.blocks[-1]

    def span(self) -> Span:
        block = self.blocks[self.draw(st.integers(0, len(self.blocks) - 1))]
        lo, hi = sorted((self.draw(st.integers(0, len(block))), self.draw(st.integers(0, len(block)))))
        return Span(block, *self.draw(st.sampled_from(((lo, hi), (lo, hi), (lo, hi), (0, None), (lo, None)))))

    def enter(self) -> None:
        """A worker with nothing but its own block."""
        self.views.append(View(self.fresh()))

    def compose(self) -> None:
        """A worker with a view put together at random."""
        items: list[Span | Gap] = [self.span() for _ in range(self.draw(st.integers(1, 6)))]
        if self.draw(st.booleans()):
            items.insert(self.draw(st.integers(0, len(items))), Gap(self.draw(st.integers(0, 4))))
        last = self.existing() or self.fresh()
        try:
            self.views.append(View(*items, Span(last, len(last))))
        except SeenTwice:
            return

    def place(self) -> None:
        """A worker behind spans of which some stand at one position, some anywhere; its own may stand further on."""
        start = self.draw(st.integers(0, 12))
        items: list[Span | Gap] = []
        for _ in range(self.draw(st.integers(1, 6))):
            found = self.span()
            at = self.draw(st.sampled_from((None, start, start, self.draw(st.integers(0, 40)))))
            items.append(Span(found.block, found.lo, found.hi, at))
        if self.draw(st.booleans()):
            items.insert(self.draw(st.integers(0, len(items))), Gap(self.draw(st.integers(0, 4))))
        last = self.existing() or self.fresh()
        grows = any(isinstance(item, Span) and item.hi is None for item in items)
        try:
            ahead = None if grows or self.draw(st.booleans()) else len(View(*items)) + self.draw(st.integers(0, 5))
            self.views.append(View(*items, Span(last, len(last), None, ahead)))
        except SeenTwice:
            return

    def existing(self) -> Block | None:
        at = self.draw(st.integers(-1, len(self.blocks) - 1))  # hypothesis keeps what is drawn: never draw blocks
        return None if at < 0 else self.blocks[at]

    def pick(self) -> int:
        return int(self.draw(st.integers(0, len(self.views) - 1)))

    def replace(self, at: int, view: View) -> None:
        self.old.append(self.views[at])
        self.views[at] = view

    def fork(self) -> None:
        view = self.views[self.pick()]
        self.views.append(view.fork(self.draw(st.integers(0, len(view))), self.fresh()))

    def splice(self) -> None:
        at = self.pick()
        self.replace(at, self.views[at].splice(*self.places(self.views[at])))

    def gap(self) -> None:
        at = self.pick()
        self.replace(at, self.views[at].gap(*self.places(self.views[at])))

    def places(self, view: View) -> tuple[int, int]:
        lo, hi = sorted((self.draw(st.integers(0, len(view))), self.draw(st.integers(0, len(view)))))
        return lo, hi

    def hide(self) -> None:
        at = self.pick()
        view = self.views[at]
        hidden = [block for block in view.blocks if block is not view.own]
        if hidden:
            self.replace(at, view.hide(hidden[self.draw(st.integers(0, len(hidden) - 1))]))

    def undo(self) -> None:
        if self.old:
            self.views[self.pick()] = self.old.pop()

    def move(self) -> None:
        """Some spans go to a block behind which a worker goes on; the sources stay where they are seen."""
        spans = [self.span() for _ in range(self.draw(st.integers(1, 3)))]
        target = self.existing() or self.fresh()
        if any(span.block is target for span in spans):
            return
        self.script.steps.append(("move", *self._told(spans, target)))
        self.engine.compact(spans, target)
        self.views.append(View(target, self.fresh()))

    def _told(self, spans: list[Span], target: Block) -> tuple[list[tuple[int, int, int]], int]:
        name = {block.uid: at for at, block in enumerate(self.blocks)}
        told = [(name[s.block.uid], s.lo, len(s.block) if s.hi is None else s.hi) for s in spans]
        return told, name[target.uid]
