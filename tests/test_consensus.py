"""consensus: rules, verdicts and thresholds, scripted ceilings, and what agents are shown."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from kvorum import Budget
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.speaker import Turn, mixed, scripted
from kvorum.kv import Span
from kvorum.programs.consensus.consensus import consensus
from kvorum.programs.consensus.voting_table import VotingTable
from kvorum.tasks.consensus import LIES, RULES, Game, deal, median, trimmed
from scripted_workers import BABBLE, Record, exact, fake, notes, outcome, solve, start, together


def names(count: int) -> list[str]:
    return [f"A{at:02d}" for at in range(count)]


# -- rules -----------------------------------------------------------------------------------------------------------


def test_stop_votes_needed_are_the_published_ones() -> None:
    assert [VotingTable(deal(names(8 + b), b, seed=1)).needed for b in range(5)] == [6, 6, 7, 8, 8]
    assert [VotingTable(deal(names(8 + b), b, seed=1, quorum="honest")).needed for b in range(5)] == [6] * 5
    assert [VotingTable(deal(names(n), 0, seed=1)).needed for n in (1, 3, 4, 16, 50, 53, 56, 59, 62, 100)] == [
        1,
        2,
        3,
        11,
        34,
        36,
        38,
        40,
        42,
        67,
    ]


def test_two_thirds_are_no_sixty_six_percent() -> None:
    table = VotingTable(game := deal(names(50), 0, seed=1))
    assert not table.stops(dict.fromkeys(game.names[:33], "stop"))
    assert table.stops(dict.fromkeys(game.names[:34], "stop"))


def test_the_two_quorums_differ_by_whose_votes_count() -> None:
    table = VotingTable(game := deal(names(12), 4, seed=3))
    votes = dict.fromkeys(game.honest[:7], "stop")
    assert not table.stops(votes)
    assert table.stops(votes, "honest")
    votes = dict.fromkeys([*game.honest[:4], *game.byzantine], "stop")
    assert table.stops(votes)  # Byzantine agents can end the game too early
    assert not table.stops(votes, "honest")
    assert not table.stops(dict.fromkeys(game.names, "continue"))


def game_of(initial: dict[str, int], byzantine: str = "") -> Game:
    return Game([*initial, *byzantine], frozenset(byzantine), initial)


@pytest.mark.parametrize(
    ("proposals", "outcome", "reason", "value"),
    [
        ({"a": 3, "b": 3, "c": 3, "z": 9}, "valid", "", 3),
        ({"a": 3, "b": 3, "c": 7}, "invalid", "split", None),
        ({"a": 4, "b": 4, "c": 4}, "invalid", "foreign", 4),  # nobody honest began with it
        ({"a": 50, "b": 50, "c": 50, "z": 50}, "invalid", "foreign", 50),  # not even if a Byzantine one proposed it
        ({"a": 5, "b": None, "z": None}, "invalid", "split", None),  # c and b still hold their own
        ({"a": 5, "c": 5}, "valid", "", 5),  # b holds 5 without proposing
    ],
)
def test_verdicts(proposals: dict[str, int | None], outcome: str, reason: str, value: int | None) -> None:
    game = game_of({"a": 3, "b": 5, "c": 7}, "z")
    game.propose(proposals)
    verdict = game.verdict(stopped=True)
    assert (verdict.outcome, verdict.reason, verdict.value) == (outcome, reason, value)
    assert game.verdict(stopped=False).outcome == "none"
    assert "z" not in game.held


def test_dealing() -> None:
    game = deal(names(10), 3, seed=5, low=10, high=12)
    assert len(game.byzantine) == 3
    assert set(game.initial) == set(game.honest)
    assert set(game.initial.values()) <= {10, 11, 12}
    assert deal(names(10), 3, seed=5).byzantine == game.byzantine
    assert len({deal(names(10), 3, seed=seed).byzantine for seed in range(20)}) > 10
    with pytest.raises(BadRequest):
        deal(names(3), 3, seed=0)
    with pytest.raises(BadRequest):
        deal(names(3), 0, seed=0, low=5, high=4)
    with pytest.raises(UnknownName):
        deal(names(3), 0, seed=0, quorum="most")


def test_the_scripted_rules() -> None:
    assert median([9, 1, 5, 3], 0) == 3
    assert median([9, 1, 5], 0) == 5
    assert trimmed([0, 10, 20, 26, 50], 1) == 20
    assert trimmed([0, 10, 20, 50], 1) == 10  # the mean lies between: the lower
    assert trimmed([4, 6], 1) == 4  # nothing would be left


# -- ceilings ----------------------------------------------------------------------------------------------------------


def play(rule: str, byzantine: int, seed: int, lie: str) -> tuple[Game, int]:
    game = deal(names(8 + byzantine), byzantine, seed=seed)
    table = VotingTable(game)
    liars = scripted(table.lie(lie, seed + 1000))
    speaker = mixed(dict.fromkeys(game.byzantine, liars), scripted(table.rule(rule)))
    for number in range(1, 51):
        if table.stops(asyncio.run(table.round(speaker))):
            return game, number
    return game, 0


@pytest.mark.parametrize(("byzantine", "share"), [(0, 1.0), (1, 0.97), (2, 0.94), (3, 0.91), (4, 0.89)])
def test_the_median_rule_reaches_its_ceiling(byzantine: int, share: float) -> None:
    lies = list(LIES)
    played = [play("median", byzantine, seed, lies[seed % 3]) for seed in range(240)]
    assert {number for _, number in played} == {2}  # all see one list, so any fixed rule agrees at once
    outcomes = [game.verdict(stopped=True) for game, _ in played]
    assert {verdict.reason for verdict in outcomes} <= {"", "foreign"}
    valid = sum(verdict.outcome == "valid" for verdict in outcomes) / len(outcomes)
    assert valid == pytest.approx(share, abs=0.0 if byzantine == 0 else 0.05)


@pytest.mark.parametrize("rule", RULES)
def test_rules_keep_extreme_lies_out(rule: str) -> None:
    """With N >= 3 B + 1 neither rule takes a value outside the honest ones' range."""
    for seed in range(60):
        game, _ = play(rule, 3, seed, "high" if seed % 2 else "low")
        (value,) = set(game.held.values())
        assert min(game.initial.values()) <= value <= max(game.initial.values())


# -- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "board"),
    [
        ('{"value": 7}', 7),
        ('{"value": " 7 "}', 7),
        ('first {"value": 1} then {"value": 2, "public_reasoning": null}', 2),
        ('{"value": 7.5}', None),
        ('{"value": true}', None),
        ('{"value": 51}', None),
        ('{"value": -1}', None),
        ('{"value": "abstain"}', None),
        ('{"value": 1e999}', None),
        ('{"values": 7}', None),
        ("seven", None),
        ("", None),
        ('{"value": ' + "[" * 50000, None),
    ],
)
def test_proposals_that_cannot_be_read_leave_what_was_held(reply: str, board: int | None) -> None:
    game = game_of({"a": 3, "b": 5})
    table = VotingTable(game, retries=1)

    def say(name: str, turn: Turn) -> str:
        if turn.system == table.rules(False, 1):
            return '{"decision": "continue"}'
        return reply if name == "a" else '{"value": 5}'

    asyncio.run(table.round(scripted(say)))
    assert game.board == {"a": board, "b": 5}
    assert game.held == {"a": 3 if board is None else board, "b": 5}
    assert sum(table.malformed.values()) == (board is None)


def test_byzantine_agents_may_abstain_and_honest_ones_not() -> None:
    game = game_of({"a": 3}, "z")
    table = VotingTable(game, retries=0)
    votes = asyncio.run(table.round(scripted(lambda name, turn: '{"value": "abstain", "decision": "abstain"}')))
    assert votes == {"z": "abstain"}
    assert game.board == {"a": None, "z": None}
    assert sum(table.malformed.values()) == 2


def test_a_note_is_private_and_a_reason_public_and_short() -> None:
    game = game_of({"a": 3, "b": 5})
    table = VotingTable(game, reason_chars=10)
    told: dict[str, str] = {}

    def say(name: str, turn: Turn) -> str:
        told[name] = turn.text
        words = f"I am {name}\n- b: 44 and more"
        return json.dumps(
            {"value": 3, "internal_strategy": f"secret of {name}", "public_reasoning": words, "decision": "continue"}
        )

    asyncio.run(table.round(scripted(say)))
    assert "secret of a" in told["a"]
    assert "secret of a" not in told["b"]
    assert "\n- a: 3. I am a - b\n- b: 3. I am b - b\n" in told["b"]  # no line of another's making
    assert "initial value: 5" in told["b"]
    assert "initial value: 5" not in told["a"]


@pytest.mark.parametrize("released", [False, True])
def test_what_is_remembered_is_the_papers_or_the_codes(released: bool) -> None:
    game = game_of({"a": 3, "b": 5}, "z")
    game.repeats = released
    table = VotingTable(game, released=released)
    shown: dict[int, str] = {}

    def say(name: str, turn: Turn) -> str:
        if name == "a":
            shown[table.number] = turn.text
        value: int | str = table.number if name != "z" or table.number == 1 else "abstain"
        reason = f"round {table.number} " + "x" * 60 + f" end {name}"
        note = f"note {table.number} of {name}"
        return json.dumps(
            {"value": value, "internal_strategy": note, "public_reasoning": reason, "decision": "continue"}
        )

    async def play() -> None:
        for _ in range(7):
            await table.round(scripted(say))

    asyncio.run(play())
    last = shown[7]  # the vote of round 7
    notes = [number for number in range(1, 8) if f"note {number} of a" in last]
    rounds = [number for number in range(1, 8) if f"- b: {number}. " in last]
    assert notes == ([3, 4, 5, 6, 7] if released else [7])
    assert rounds == ([4, 5, 6, 7] if released else [7])
    assert last.count("end b") == 1  # of rounds that are over, 50 characters of each reason
    assert ("- z: 1. " in last) == released
    assert ("- z: no proposal. " in last) == (not released)


def test_both_arms_of_the_prompt() -> None:
    game = game_of({"a": 3}, "z")
    warned, trusting = VotingTable(game).rules(False, 0), VotingTable(game, warned=False).rules(False, 0)
    assert "may be Byzantine" in warned
    assert "may be Byzantine" not in trusting
    assert "need" not in trusting
    assert "You are Byzantine" in VotingTable(game).rules(True, 0)


# -- on the engine ---------------------------------------------------------------------------------------------------


def propose(value: int, reason: str) -> str:
    return json.dumps({"internal_strategy": "hm", "value": value, "public_reasoning": reason})


STOP, GO = '{"decision": "stop"}', '{"decision": "continue"}'


def game_on_engine(channel: str, **options: Any) -> Any:
    initial = deal(["Alice", "Bob", "Carol"], 0, seed=4).initial
    value = initial["Bob"]
    words = {
        name: [propose(initial[name], f"{name} likes it"), GO, propose(value, f"{name} follows"), STOP]
        for name in initial
    }
    return solve(consensus, "agree", words, workers=3, game_seed=4, channel=channel, **options)


@pytest.mark.parametrize("channel", ["text", "cache"])
def test_a_game_on_the_engine(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch)
    result, run = game_on_engine(channel, on=exact())
    assert record.error() < 1e-9
    told = outcome(result)
    assert (told["outcome"], told["rounds"], told["all_quorum"]) == ("valid", 2, True)
    assert told["value"] == told["initial"]["Bob"]
    assert not told["malformed"]
    table = VotingTable(deal(["Alice", "Bob", "Carol"], 0, seed=4))
    for worker in run.workers:  # the last vote: rules and board in front, then what is its own
        last = [note["text"] for note in notes(result, "told") if note["worker"] == worker.name][-1]
        shown = "".join(map(chr, worker.view.ids))
        assert shown.startswith(f"{table.rules(False, 1)}\n\n{last}\n\n")
        assert shown.endswith(STOP)
        assert [name for name in ("Alice", "Bob", "Carol") if f"{name} follows" in shown] == ["Alice", "Bob", "Carol"]
    spans = [
        "".join(map(chr, item.block.ids[item.lo : item.hi]))
        for item in run.workers[0].view.items
        if isinstance(item, Span) and item.hi is not None
    ]
    reasons = [f"{name} follows" for name in ("Alice", "Bob", "Carol")]
    assert [span for span in spans if span in reasons] == (reasons if channel == "cache" else [])


def test_the_board_is_encoded_once_for_all() -> None:
    result, run = game_on_engine("text")
    shared: set[int] = set()
    for worker in run.workers:
        *front, _ = worker.view.items
        shared.add(hash(tuple((item.block.uid, item.lo) for item in front if isinstance(item, Span))))
        assert "Carol follows" in "".join(map(chr, worker.view.ids[: sum(map(len, front))]))
    assert len(shared) == 1
    cache, _ = game_on_engine("cache")
    reasons = 2 * sum(len(f"{name} likes it") + len(f"{name} follows") for name in ("Alice", "Bob", "Carol"))
    repeats = result.ledger.prefill - cache.ledger.prefill  # each reason is encoded for the vote and the next proposal
    assert repeats == reasons - sum(len(f"{name} follows") for name in ("Alice", "Bob", "Carol"))


@pytest.mark.parametrize("player", RULES)
def test_scripts_play_in_the_program_too(player: str) -> None:
    result, _ = solve(consensus, "agree", workers=12, player=player, liar="random", byzantine=4, game_seed=2)
    told = outcome(result)
    assert (told["rounds"], told["needed"], result.ledger.ticks) == (2, 8, 0)
    assert told["outcome"] in ("valid", "invalid")


def test_a_model_that_babbles_times_out() -> None:
    options: dict[str, Any] = {"rounds": 2, "proposal_tokens": 5, "vote_tokens": 4, "retries": 1}
    options |= {"proposal_temperature": 0.0, "vote_temperature": 0.0}
    result, _ = solve(consensus, "Be quick.", workers=3, byzantine=1, sampling=BABBLE, **options)
    told = outcome(result)
    assert told["outcome"] == "none"
    assert sum(told["malformed"].values()) == 2 * 2 * 3
    assert result.ledger.decoded == 2 * 2 * 3 * (5 + 4)
    assert told["held"] == told["initial"]


@pytest.mark.parametrize("ticks", [1, 3, 20, 150])
def test_budgets_hold(ticks: int) -> None:
    result, _ = game_on_engine("cache", budget=Budget(ticks=ticks))
    assert result.ledger.ticks <= ticks
    assert (result.answer, result.spent) == (None, "ticks")
    assert notes(result, "outcome")[0]["outcome"] == "stopped"


def test_games_of_a_sweep_share_ticks() -> None:
    def runs() -> list[Any]:
        options: dict[str, Any] = {"rounds": 1, "proposal_tokens": 6, "vote_tokens": 6, "retries": 0, "workers": 3}
        return [start(consensus, "agree", byzantine=b, game_seed=b, **options) for b in (0, 1, 2)]

    before = fake().ledger.ticks
    shared = together(runs())
    assert fake().ledger.ticks - before <= max(result.ledger.ticks for result in shared) + 3
    alone = [together([run])[0] for run in runs()]
    assert [[w.ids for w in a.workers] for a in shared] == [[w.ids for w in a.workers] for a in alone]


def test_requests_that_cannot_be() -> None:
    for options, error in (
        ({"player": "mean"}, UnknownName),
        ({"liar": "honest"}, UnknownName),
        ({"rounds": 0}, BadRequest),
        ({"retries": -1}, BadRequest),
        ({"byzantine": 4}, BadRequest),
        ({"channel": "radio"}, UnknownName),
    ):
        with pytest.raises(error):
            solve(consensus, "agree", **options)


def test_lies() -> None:
    game, draw = deal(names(4), 1, seed=0, low=3, high=9), random.Random(0)
    assert (LIES["low"](game, draw), LIES["high"](game, draw)) == (3, 9)
    assert {LIES["random"](game, draw) for _ in range(200)} == set(range(3, 10))
