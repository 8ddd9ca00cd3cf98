"""Random programs over views: made on a live engine, written down as plain data, played again anywhere.

A script names blocks by number and says what each row sees in the oracle's terms, so the engine that made it, another
engine and the oracle all get the same program. Covers ragged rows, growth in turns, forks at any token, splices, gaps,
hidden blocks, moves, undone edits, composed views, placed spans (siblings at one position, and empty positions),
patched blocks, saved and loaded ones among them, and latent rows. Counts which of these rows have really met. Says
nothing about what is right.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from kvorum import LATENT, Block, Engine, Gap, Row, Span, View
from kvorum.errors import SeenTwice
from oracle import Items, Oracle

Draw = Callable[[Any], Any]
Rows = list[tuple[Items, "list[int] | Tensor"]]


@dataclass
class Script:
    """Steps ("tick", rows), ("move", spans, into) and ("patch", block, before, chosen tokens, into, whether saved)."""

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
        elif step[0] == "patch":
            _read_again(oracle, *step[1:5])
        else:
            oracle.move(step[1], step[2])
    solved = oracle.solve()
    return Played(
        [[solved.logits[new] for new in tick] for tick in numbers],
        [[solved.hidden[new[-1]] for new in tick] for tick in numbers],
    )


def _read_again(oracle: Oracle, block: int, before: Items, chosen: Sequence[int], into: int) -> None:
    """A patch as a tick and a move: runs of chosen tokens are rows of one tick, each behind all of the block before it;
    the new block has them and the old rest."""
    numbers = oracle.blocks.setdefault(block, [])
    cuts = [at for at in range(len(numbers) + 1) if at in (0, len(numbers)) or (at in chosen) != (at - 1 in chosen)]
    seen = list(before)
    rows: list[Any] = []
    parts: list[Any] = []
    for lo, hi in pairwise(cuts):
        fresh = ("again", into, lo)
        if lo in chosen:
            rows.append(([*seen, (fresh, 0, None)], [oracle.inputs[number] for number in numbers[lo:hi]]))
        parts.append((fresh, 0, hi - lo) if lo in chosen else (block, lo, hi))
        seen.append(parts[-1])
    if rows:
        oracle.tick(rows)
    oracle.move(parts, into)


def reloaded(engine: Engine, block: Block, into: Engine | None = None) -> Block:
    """The block as it comes back from disk, in the same engine or ``into`` another."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save(block, Path(folder) / "block")
        return (into or engine).load_block(Path(folder) / "block")


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

    def viewed(items: Items) -> list[Span | Gap]:
        return [Gap(i) if isinstance(i, int) else Span(block(i[0]), *i[1:]) for i in items]

    for step in script.steps:
        if step[0] == "patch":
            _, name, before, chosen, into, saved = step
            made = engine.patch(block(name), View(*viewed(before)), chosen)
            blocks[into] = reloaded(engine, made) if saved else made
            continue
        if step[0] == "move":
            engine.compact([Span(block(name), lo, hi) for name, lo, hi in step[1]], block(step[2]))
            continue
        rows = []
        for items, tokens in step[1]:
            view = View(*viewed(items))
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
        *("fork", "place", "patch") * 2,
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
        self.patched: set[int] = set()
        self.reached = Counter[str]()

    def make(self, steps: int) -> None:
        """Run ``steps`` drawn steps between two ticks of everyone."""
        self.enter()
        self.enter()
        self.tick(everyone=True)
        for _ in range(steps):
            getattr(self, self.draw(st.sampled_from(self.OPS)))()
        self.tick(everyone=True)

    def tick(self, *, everyone: bool = False) -> None:
        writers: dict[int, View] = {}
        for at in self.draw(st.permutations(range(len(self.views)))):
            view = self.views[at]
            assert view.own is not None
            if len(view) < 100 and (everyone or len(writers) == 0 or self.draw(st.integers(0, 3))):
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
        for view in writers.values():
            self.reached.update(self.met(view))
        if rows:
            self.script.steps.append(("tick", told))
            _record(self.played, self.engine.forward(rows, hidden=True, every=True), range(len(rows)))

    def met(self, view: View) -> Iterable[str]:
        """What a row of this view meets."""
        starts = view.starts()
        spans = [
            (at, item) for at, item in zip(starts, view.items, strict=False) if isinstance(item, Span) and len(item)
        ]
        taken = [place for at, item in spans for place in range(at, at + len(item))]
        yield "rows"
        if any(item.at is not None for _, item in spans):
            yield "placed"
        if len(set(taken)) < len(taken):
            yield "siblings"
        if any(item.block.uid in self.patched for _, item in spans):
            yield "patched"

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
        """A worker behind spans of different blocks, of which the first two begin at one position and the others there,
        anywhere, or behind; its own may stand further on."""
        written = [at for at, block in enumerate(self.blocks) if len(block)]
        last = (self.existing() if len(written) > 2 else None) or self.fresh()
        others = [at for at in written if self.blocks[at] is not last]
        if len(others) < 2:
            return
        start = self.draw(st.integers(0, 12))
        items: list[Span | Gap] = []
        for at in self.draw(st.lists(st.sampled_from(others), min_size=2, max_size=6, unique=True)):
            anywhere = self.draw(st.sampled_from((None, start, start, self.draw(st.integers(0, 40)))))
            items.append(self.part(self.blocks[at], start if len(items) < 2 else anywhere))
        if self.draw(st.booleans()):
            items.insert(self.draw(st.integers(0, len(items))), Gap(self.draw(st.integers(0, 4))))
        grows = any(isinstance(item, Span) and item.hi is None for item in items)
        ahead = None if grows or self.draw(st.booleans()) else len(View(*items)) + self.draw(st.integers(0, 5))
        self.views.append(View(*items, Span(last, len(last), None, ahead)))

    def part(self, block: Block, at: int | None) -> Span:
        """At least one token of a block, at a position."""
        lo = self.draw(st.integers(0, len(block) - 1))
        return Span(block, lo, self.draw(st.sampled_from((None, self.draw(st.integers(lo + 1, len(block)))))), at)

    def patch(self) -> None:
        """Some tokens of a block are read again behind a view that is cut anywhere. A worker goes on behind it, or
        writes on where it ends."""
        number = self.draw(st.integers(0, len(self.blocks) - 1))
        block, view = self.blocks[number], self.views[self.pick()]
        left = View(*(item for item in view.items if not (isinstance(item, Span) and item.block is block)))
        before = left.fork(self.draw(st.integers(0, len(left))))
        if len(before) + len(block) > 100:
            return
        known = [at for at, token in enumerate(block.ids) if token != LATENT]
        some = self.draw(st.sets(st.sampled_from(known))) if known else set()
        chosen = self.draw(st.sampled_from((sorted(some), sorted(some), known[: len(some)], known)))
        told, saved = self.items(before), self.draw(st.booleans())
        made = self.engine.patch(block, before, chosen)
        self.blocks.append(reloaded(self.engine, made) if saved else made)
        self.patched.add(self.blocks[-1].uid)
        self.script.steps.append(("patch", number, told, chosen, len(self.blocks) - 1, saved))
        own = [] if self.draw(st.booleans()) and not self.blocks[-1].sealed else [self.fresh()]
        self.views.append(View(*before.items, self.blocks[-1 - len(own)], *own))

    def existing(self) -> Block | None:
        """A block that a row may write on, or none."""
        at = self.draw(st.integers(-1, len(self.blocks) - 1))  # hypothesis keeps what is drawn: never draw blocks
        return None if at < 0 or self.blocks[at].sealed else self.blocks[at]

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


class Places(Maker):
    """Programs that place spans in every third step, and patch blocks behind them."""

    OPS = (*("place",) * 5, *("tick",) * 4, *("patch",) * 4, "fork", "splice", "gap", "hide", "undo", "move")


def really_met(met: Counter[str], **shares: float) -> None:
    """Random programs say nothing of a case that they do not hold: so many of their rows met it at least."""
    for kind, share in shares.items():
        assert met[kind] > share * met["rows"] > 0, f"too few rows are {kind}: {met}"
