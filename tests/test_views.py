"""Views, spans and gaps as data: every edit against the same edit on a plain list of positions.

Covers growth through open ends, fork, hide, splice, gap, then, undo, lengths, ids, and that edits touch no tensor and
no block. What a view means to attention is in ``test_forward_oracle.py``; named errors are in ``test_errors.py``.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvorum import Block, Gap, Span, View
from kvorum.errors import SpanOutOfRange, ViewError
from kvorum.kv import CacheConfig, CacheShape, PagePool

Place = tuple[str, int] | None  # (block, index), or nothing: a gap
Mark = tuple[str, bool]  # an open end, and whether tokens of its block stand right before it


def blocks(*lengths: int) -> list[Block]:
    """Blocks b0, b1, … on a pool of their own."""
    made, pool = [], PagePool(CacheConfig((CacheShape(1, 2, 2),), 256, page_size=4))
    for at, length in enumerate(lengths):
        made.append(Block(pool, f"b{at}"))
        made[-1].append(range(100 * at, 100 * at + length))
    return made


def spelled(view: View) -> list[Place]:
    """What stands at each position."""
    out: list[Place] = []
    for item in view.items:
        if isinstance(item, Gap):
            out += [None] * item.length
        else:
            hi = len(item.block) if item.hi is None else item.hi
            out += [(item.block.name, index) for index in range(item.lo, hi)]
    return out


def with_marks(view: View) -> list[Place | Mark]:
    """The same with a mark at each open end."""
    out: list[Place | Mark] = []
    for item in view.items:
        out += spelled(View(item))
        if isinstance(item, Span) and item.hi is None:
            out.append((item.block.name, len(item) > 0))
    return out


def is_mark(entry: Place | Mark) -> bool:
    return entry is not None and isinstance(entry[1], bool)


def grown(entries: list[Place | Mark], made: list[Block], by: int) -> list[Place]:
    """What the list shows after every block has grown by ``by``: open ends turn into the new tokens."""
    length = {block.name: len(block) for block in made}
    out: list[Place] = []
    for entry in entries:
        if is_mark(entry):
            assert entry is not None
            out += [(entry[0], length[entry[0]] + more) for more in range(by)]
        else:
            out.append(entry)
    return out


@st.composite
def views(draw: st.DrawFn) -> tuple[list[Block], View]:
    """Open blocks, closed spans and gaps in any order, each block at most once; own block last, closed parts before."""
    made = blocks(*draw(st.lists(st.integers(0, 6), min_size=3, max_size=6)))
    *rest, own = made
    items: list[Block | Span | Gap] = []
    for block in draw(st.permutations(rest)):
        lo, hi = sorted((draw(st.integers(0, len(block))), draw(st.integers(0, len(block)))))
        forms: tuple[Block | Span, ...] = (block, Span(block, lo), Span(block, lo, hi))
        items.append(draw(st.sampled_from(forms)))
        if draw(st.integers(0, 3)) == 0:
            items.append(Gap(draw(st.integers(0, 3))))
    cut = draw(st.integers(0, len(own)))
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), Span(own, 0, draw(st.integers(0, cut))))
    return made, View(*items, Span(own, cut))


def after_cut(view: View, start: int, end: int, filler: list[Place]) -> list[Place | Mark]:
    """The list with positions start to end cut out. An open end goes with the token before it; the last one stays."""
    kept: list[Place | Mark] = []
    position, filled = 0, False
    entries = with_marks(view)
    for at, entry in enumerate(entries):
        if not filled and position >= start and not (is_mark(entry) and position == start):
            kept, filled = kept + filler, True
        if is_mark(entry):
            assert entry is not None
            inside = start < position < end or (start < position == end and entry[1])
            if not inside or at == len(entries) - 1:
                kept.append(entry)
        else:
            if not start <= position < end:
                kept.append(entry)
            position += 1
    return kept


@settings(max_examples=400)
@given(made=views(), data=st.data())
def test_splice_and_gap_are_cuts_of_the_list(made: tuple[list[Block], View], data: st.DataObject) -> None:
    all_blocks, view = made
    start, end = sorted((data.draw(st.integers(0, len(view))), data.draw(st.integers(0, len(view)))))
    nothing: list[Place] = []
    empty: list[Place] = [None] * (end - start)
    for edited, filler in ((view.splice(start, end), nothing), (view.gap(start, end), empty)):
        expected = after_cut(view, start, end, filler) if start < end else with_marks(view)
        assert edited.own is view.own
        assert spelled(edited) == [entry for entry in expected if not is_mark(entry)]
        assert len(edited) == len(view) - (end - start) + len(filler)
        for by in (0, 3):
            future = grown(expected, all_blocks, by)
            assert grown(with_marks(edited), all_blocks, by) == future


@settings(max_examples=200)
@given(made=views(), data=st.data())
def test_a_fork_sees_the_first_positions_and_its_own_block(made: tuple[list[Block], View], data: st.DataObject) -> None:
    _, view = made
    at = data.draw(st.integers(0, len(view)))
    fresh = Block(view.blocks[-1].pool, "fresh")
    fork = view.fork(at, fresh)
    assert spelled(fork) == spelled(view)[:at]
    assert fork.own is fresh
    fresh.append([1, 2])
    assert spelled(fork) == [*spelled(view)[:at], ("fresh", 0), ("fresh", 1)]
    own = view.own
    assert own is not None
    before = len(own)
    own.append([7])
    assert (own.name, before) not in spelled(fork)  # the parent's later words are not the child's


@settings(max_examples=100)
@given(made=views(), data=st.data())
def test_edits_can_be_undone_and_touch_nothing(made: tuple[list[Block], View], data: st.DataObject) -> None:
    all_blocks, view = made
    pool = all_blocks[0].pool
    old, free, ids = spelled(view), pool.free, [block.ids for block in all_blocks]
    start, end = sorted((data.draw(st.integers(0, len(view))), data.draw(st.integers(0, len(view)))))
    edited = [view.splice(start, end), view.gap(start, end), view.fork(start, Block(pool)), view.hide(*view.blocks[:1])]
    assert spelled(view) == old
    assert pool.free == free
    assert [block.ids for block in all_blocks] == ids
    assert len(edited) == 4


def test_hide_drops_every_span_of_a_block() -> None:
    a, b, c = blocks(3, 4, 2)
    view = View(Span(b, 0, 2), a, Gap(2), Span(b, 2), c)
    assert spelled(view.hide(b)) == [*[("b0", i) for i in range(3)], None, None, ("b2", 0), ("b2", 1)]
    assert spelled(view.hide(a, b)) == [None, None, ("b2", 0), ("b2", 1)]
    assert view.hide().items == view.items


def test_hide_of_a_block_that_is_not_there_is_an_error_that_names_it() -> None:
    a, b, c = blocks(3, 4, 2)
    view = View(a, b)
    with pytest.raises(ViewError, match="block b2 does not stand in the view"):
        view.hide(a, c)
    assert view.hide(a).hide(b).items == ()


def test_lengths_and_ids_follow_open_ends() -> None:
    a, b = blocks(2, 1)
    view = View(a, Gap(2), Span(a, 2, 2), b)
    assert (len(view), view.ids) == (5, [0, 1, 100])
    a.append([9])
    assert (len(view), view.ids) == (6, [0, 1, 9, 100])
    assert view.blocks == (a, b)
    closed = View(Span(a, 1, 2), b)
    a.append([8])
    assert (len(closed), closed.ids) == (2, [1, 100])


def test_then_puts_behind_and_keeps_open_ends() -> None:
    a, b = blocks(2, 1)
    longer = View(a).then(Gap(1), b)
    a.append([5])
    assert spelled(longer) == [("b0", 0), ("b0", 1), ("b0", 2), None, ("b1", 0)]
    assert longer.own is b
    assert View(a).own is a


def test_own_is_the_open_end_that_stands_last() -> None:
    a, b = blocks(2, 1)
    assert View().own is None
    assert View(a, Gap(1)).own is None
    assert View(a, Span(b, 0, 1)).own is None
    assert View(a, Span(b, 1)).own is b


def test_an_empty_cut_behind_an_open_end_keeps_it_writable() -> None:
    """Found by the random programs: Gap(0) was put behind the own block, which could then not be written to."""
    (a,) = blocks(0)
    for view in (View(a).gap(0, 0), View(a).splice(0, 0)):
        assert view.own is a


def test_two_spans_of_one_block_may_stand_apart() -> None:
    a, b = blocks(6, 1)
    view = View(Span(a, 3, 6), Span(a, 0, 3), b)
    assert [place[1] for place in spelled(view) if place] == [3, 4, 5, 0, 1, 2, 0]


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 5), (4, 5)])
def test_places_outside_the_view_are_refused(start: int, end: int) -> None:
    a, b = blocks(3, 1)
    view = View(a, b)
    for edit in (view.splice, view.gap):
        with pytest.raises(SpanOutOfRange):
            edit(start, end)
    if start != 2:
        with pytest.raises(SpanOutOfRange):
            view.fork(end if start >= 0 else start)
