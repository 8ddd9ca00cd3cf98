"""Who decides in which buffers a tick of several processes runs: the driver, by the same tables as all of them.

Plans of teams that decode; when a bucket is captured, replayed and dropped; what cannot stand in buffers; a rank that
refuses; and that orders and answers say it as bytes. Not covered: the buffers (`tests/vllm/test_vllm_graphs.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from kvorum import Engine, Row, View
from kvorum.attention.plan import Planner
from kvorum.attention.tap import Tap
from kvorum.attention.triton.tables import Cuts
from kvorum.backends.backend import Work
from kvorum.backends.fake import FakeBackend
from kvorum.backends.vllm import static_ticks
from kvorum.backends.vllm.packing import Answer, Order, pack_answer, pack_order, unpack_answer, unpack_order
from kvorum.backends.vllm.static_ticks import Static, StaticTicks
from kvorum.kv import Block

CUTS = Cuts(most=32, programs=8, parts=4096)


class Team:
    """Workers behind one prompt, whose ticks are planned and not computed."""

    def __init__(self) -> None:
        self.engine = Engine(FakeBackend(), kv_tokens=4096)
        self.planner = Planner()
        self.prompt = self.engine.block()
        self.engine.forward([Row(View(self.prompt), ids=[1] * 20)])
        self.blocks: list[Block] = [self.engine.block() for _ in range(300)]

    def work(self, rows: int, tokens: int = 1) -> Work:
        views = [View(self.prompt, block) for block in self.blocks[:rows]]
        for block in self.blocks[:rows]:
            block.append([2] * tokens)
        counts: Sequence[int] = [tokens] * rows
        plan = self.planner.plan(views, counts)
        return Work(plan, [2] * plan.tokens, [], torch.arange(rows))


@pytest.fixture(scope="module")
def team() -> Team:
    return Team()


def turn(ticks: StaticTicks, work: Work, refusals: Sequence[str] = ("", "")) -> Static | None:
    """A tick in which all goes well, unless it is said otherwise."""
    found = ticks.turn(work)
    ticks.told(refusals)
    return found


def test_a_bucket_is_captured_when_it_has_come_up_and_replayed_then(team: Team) -> None:
    ticks = StaticTicks(CUTS)
    seen = [turn(ticks, team.work(2)) for _ in range(5)]
    assert seen == [None, None, Static(1, True), Static(1, False), Static(1, False)]
    assert (ticks.captured, ticks.replayed) == (1, 2)
    assert ticks.drop() == []


def test_what_cannot_stand_in_buffers_is_eager(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_ticks, "AFTER", 0)
    ticks = StaticTicks(CUTS)
    tapped, latent = team.work(2), team.work(2)
    tapped.tap = Tap(torch.zeros(64, dtype=torch.int32), 1, [0], 2, 1)
    latent.embeds = [(0, torch.zeros(1, 8))]
    for work in (team.work(2, tokens=3), tapped, latent, team.work(257)):
        assert turn(ticks, work) is None
    assert turn(StaticTicks(CUTS._replace(parts=1)), team.work(2)) is None  # takes several passes
    assert ticks.captured == 0


def test_the_least_used_bucket_is_dropped_on_all_ranks_once(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_ticks, "AFTER", 0)
    monkeypatch.setattr(static_ticks, "KEEP", 2)
    ticks = StaticTicks(CUTS)
    numbers = [turn(ticks, team.work(rows)) for rows in (1, 2, 1, 8)]
    assert numbers == [Static(1, True), Static(2, True), Static(1, False), Static(3, True)]
    assert (ticks.drop(), ticks.drop(), ticks.captured) == ([2], [], 2)
    assert turn(ticks, team.work(2)) == Static(4, True)


def test_one_rank_that_cannot_ends_it_for_all(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_ticks, "AFTER", 0)
    ticks = StaticTicks(CUTS)
    turn(ticks, team.work(1))
    with pytest.warns(UserWarning, match="runs eagerly: out of memory"):
        turn(ticks, team.work(2), ("", "out of memory"))
    assert ticks.refused == "out of memory"
    assert turn(ticks, team.work(1)) is None
    assert sorted(ticks.drop()) == [1, 2]


def test_captures_that_hold_no_more_are_made_anew(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_ticks, "AFTER", 0)
    ticks = StaticTicks(CUTS)
    turn(ticks, team.work(1))
    assert ticks.turn(team.work(2)) == Static(2, True)
    ticks.told(["", ""], moved=True)
    assert (ticks.captured, ticks.refused, ticks.drop()) == (0, None, [1, 2])
    assert ticks.turn(team.work(2, tokens=3)) is None
    ticks.told(["", ""], moved=True)  # an eager tick may do it as well
    assert [turn(ticks, team.work(1)) for _ in range(2)] == [Static(3, True), Static(3, False)]


def test_buffers_of_a_tick_that_failed_are_dropped(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_ticks, "AFTER", 0)
    ticks = StaticTicks(CUTS)
    assert ticks.turn(team.work(1)) == Static(1, True)  # and nobody answers
    assert turn(ticks, team.work(1)) == Static(2, True)
    assert ticks.drop() == [1]


def test_ranks_agree_on_cuts_that_suit_all() -> None:
    assert Cuts.for_all([CUTS, CUTS]) == CUTS
    assert Cuts.for_all([CUTS, Cuts(16, 9, 8192)]) == Cuts(16, 9, 4096)


def test_orders_and_answers_say_it(team: Team) -> None:
    work = team.work(2)
    for static, drop in ((None, []), (Static(3, True), [1, 2]), (Static(7, False), [])):
        found = unpack_order(pack_order(Order(5, (), work, static, drop), []), 1)
        assert (found.static, list(found.drop)) == (static, drop)
    assert unpack_answer(pack_answer(Answer(refused="no memory"))).refused == "no memory"
    assert unpack_answer(pack_answer(Answer(moved=True))).moved
    assert unpack_answer(pack_answer(Answer())) == Answer([])
