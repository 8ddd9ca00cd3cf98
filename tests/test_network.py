"""network: the protocol of its rounds without a model, and the views of both channels on the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kvorum import Budget, Run
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.speaker import Quote, Turn
from kvorum.kv import Span
from kvorum.programs.network.message_rounds import MessageRounds
from kvorum.programs.network.network import network
from kvorum.runs.steering import Command
from kvorum.tasks import graphs
from kvorum.tasks.agentsnet import MARK, find, task, verify
from network_play import names, play
from scripted_workers import (
    BABBLE,
    Record,
    block_of,
    dense,
    exact,
    fake,
    notes,
    outcome,
    solve,
    start,
    thread,
    together,
)

TRIANGLE = "0-1,1-2,2-0"

# -- the protocol ----------------------------------------------------------------------------------------------------


def test_every_message_arrives_once_at_its_neighbour_and_in_the_next_round() -> None:
    graph = graphs.make("delaunay", names(7), 3)
    heard: list[tuple[int, str, str, str]] = []
    turns = dict.fromkeys(graph, 0)

    def say(name: str, turn: Turn) -> str:
        heard.extend((turns[name], part.sender, name, part.text) for part in turn.parts if isinstance(part, Quote))
        turns[name] += 1
        assert turn.wants == ("messages" if turns[name] < 4 else "answer")
        return json.dumps({other: f"{name} to {other} at {turns[name] - 1}" for other in graph[name]}) + f"{MARK} No"

    play(graph, "leader", say, rounds=3)
    expected = {(t + 1, a, b, f"{a} to {b} at {t}") for t in range(3) for a in graph for b in graph[a]}
    assert set(heard) == expected
    assert len(heard) == len(expected)
    assert set(turns.values()) == {4}  # three exchanges and the question


NO_MESSAGE = "No key of the JSON object is one of your neighbors with a text."


@pytest.mark.parametrize(
    ("reply", "malformed", "heard"),
    [
        ("no braces at all", {"No JSON object could be read.": 1}, set()),
        ('{"N00": "hi", ', {"No JSON object could be read.": 1}, set()),
        ("{" * 3000, {"No JSON object could be read.": 1}, set()),
        ('{"N00":' + "[" * 100000, {"No JSON object could be read.": 1}, set()),
        ("", {"No JSON object could be read.": 1}, set()),
        ('{"Zoe": "hi", "N00": "x", "N03": "me"}', {"key that is no neighbor": 2}, {"x"}),
        ('{"N00": "x", "N01": 3, "N02": {"a": "b"}}', {"message that is no text": 2}, {"x"}),
        ('{"N00": " ", "N01": 3}', {NO_MESSAGE: 1}, set()),
        ('{"messages": {"N00": "hi"}}', {NO_MESSAGE: 1}, set()),
        ('{"n00": "hi"}', {NO_MESSAGE: 1}, set()),
        ("{}", {}, set()),
        (r'{\n"N00": "hi",\n "N01": "ho"\n}', {}, {"hi", "ho"}),
        ('I think: {"N00": "a",\n"N01": "two\nlines",}', {}, {"a", "two\nlines"}),
        ('{"N00": "draft"} no: {"N00": "real"} {"thought": "hm"}', {}, {"real"}),
        ('{"N00": "half a \\ud83d pair"}', {}, {"half a ? pair"}),
    ],
)
def test_malformed_messages_cost_themselves_alone(reply: str, malformed: dict[str, int], heard: set[str]) -> None:
    graph = graphs.make("smallworld", names(4), 1)  # all know all
    got: set[str] = set()

    def say(name: str, turn: Turn) -> str:
        got.update(part.text for part in turn.parts if isinstance(part, Quote))
        return f"{MARK} 0" if turn.wants == "answer" else reply if name == "N03" else "{}"

    exchange, answers = play(graph, "consensus", say, rounds=1)
    assert got == heard
    assert dict(exchange.malformed) == malformed
    assert find("consensus").score(graph, answers).solved  # the answers were fine


def test_a_worker_is_asked_again_once_in_its_thread() -> None:
    graph = graphs.make(TRIANGLE, names(3), 0)
    asked: list[Turn] = []

    def say(name: str, turn: Turn) -> str:
        if name != "N00":
            return f"{{}} {MARK} 1"
        asked.append(turn)
        return ["oh", "{}", "well", f"{MARK} 1"][len(asked) - 1]

    exchange, answers = play(graph, "consensus", say, rounds=1)
    assert answers == dict.fromkeys(graph, "1")
    assert [turn.system is None for turn in asked] == [False, True, True, True]
    assert "again" in asked[1].text
    assert "again" in asked[3].text
    assert not exchange.malformed


# -- on the engine ---------------------------------------------------------------------------------------------------


WORDS = {
    "Alice": ['{"Bob": "I am in one", "Carol": "hello Carol"}', '{"Bob": "good"}', f"{MARK} Group 1"],
    "Bob": ['so {"Alice": "two for me"}', '{"Alice": "yes", "Carol": "three?"}', f"{MARK} Group 2"],
    "Carol": ['{"Bob": "who am I", "Alice": "??"} ok', "{}", f"{MARK} Group 3"],
}


def exchange_on_engine(channel: str, **options: Any) -> tuple[Any, Run]:
    return solve(network, "coloring", WORDS, workers=3, graph=TRIANGLE, rounds=2, channel=channel, **options)


@pytest.mark.parametrize("channel", ["text", "cache"])
def test_a_thread_shows_exactly_what_was_told_and_said(channel: str) -> None:
    result, run = exchange_on_engine(channel)
    assert outcome(result)["solved"] is True
    exchange = MessageRounds(graphs.make(TRIANGLE, ["Alice", "Bob", "Carol"], 0), find("coloring"), 2)
    for worker in run.workers:
        shown = "".join(map(chr, worker.view.ids))
        assert shown == f"{exchange.rules()}\n\n{thread(result, run, worker.name)}"
        assert worker.view.ids.count(3) == 0
    told = [note["text"] for note in notes(result, "told") if note["worker"] == "Bob"]
    assert "Message from Alice:\nI am in one\n\nMessage from Carol:\nwho am I" in told[1]
    assert "Message from Alice:\ngood\n\nNo message came from: Carol." in told[2]
    assert "hello Carol" not in "".join(told)


def test_text_threads_equal_a_plain_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch)
    _, run = exchange_on_engine("text", on=exact())
    assert record.error() < 1e-9
    for worker in run.workers:
        assert worker.view.own is not None
        assert worker.view.own.logits is not None
        assert torch.allclose(worker.view.own.logits, dense(worker.view.ids), atol=1e-9)


def test_cache_messages_are_the_senders_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch)
    result, run = exchange_on_engine("cache", on=exact())
    assert record.error() < 1e-9
    text, _ = exchange_on_engine("text")
    delivered = sum(map(len, ("I am in one", "hello Carol", "good", "two for me", "yes", "three?", "who am I", "??")))
    assert text.ledger.prefill - result.ledger.prefill == delivered  # nothing of a message is encoded again
    bob = run.workers[1]
    mine = {item.block.uid for item in bob.view.items if isinstance(item, Span) and item.block.name == "Bob"}
    spans = [
        (item.block.name, "".join(map(chr, item.block.ids[item.lo : item.hi])))
        for item in bob.view.items
        if isinstance(item, Span) and item.block.uid not in mine and item.block.name != "rules"
    ]
    assert spans == [("Alice", "I am in one"), ("Carol", "who am I"), ("Alice", "good")]
    assert bob.view.own is not None
    assert bob.view.own.logits is not None
    far = (bob.view.own.logits - dense(bob.view.ids)).abs().max()
    assert far > 1e-3  # the messages know what their writers knew: not what encoding their text would give


def test_rules_are_encoded_once_for_all() -> None:
    result, run = exchange_on_engine("text")
    rules = [worker.view.items[0] for worker in run.workers]
    assert len({block_of(item).uid for item in rules}) == 1
    length = len(MessageRounds(graphs.make(TRIANGLE, list("ABC"), 0), find("coloring"), 2).rules())
    assert len(rules[0]) >= length
    fed = sum(len(worker.view.ids) for worker in run.workers) - result.ledger.decoded
    assert result.ledger.prefill == fed - 2 * len(rules[0])


def test_runs_of_a_sweep_share_ticks_and_stay_themselves() -> None:
    def runs() -> list[Any]:
        return [
            start(
                network, problem, workers=3, graph=graph, rounds=1, channel=channel, message_tokens=8, answer_tokens=8
            )
            for problem, graph, channel in (
                ("coloring", "smallworld", "text"),
                ("leader", "scalefree", "cache"),
                ("matching", "delaunay", "text"),
            )
        ]

    before = fake().ledger.ticks
    shared = together(runs())
    ticks = fake().ledger.ticks - before
    alone = [together([run])[0] for run in runs()]
    assert [[w.ids for w in a.workers] for a in shared] == [[w.ids for w in a.workers] for a in alone]
    assert ticks <= max(result.ledger.ticks for result in shared) + 3


@pytest.mark.parametrize("channel", ["text", "cache"])
def test_a_model_that_babbles_ends_in_an_outcome(channel: str) -> None:
    options: dict[str, Any] = {"workers": 3, "rounds": 1, "message_tokens": 9, "answer_tokens": 9}
    result, _ = solve(network, "matching", channel=channel, sampling=BABBLE, **options)
    told = outcome(result)
    assert told["outcome"] == "unanswered"
    assert told["malformed"] == {"No JSON object could be read.": 3, "No valid answer could be read.": 3}
    assert result.ledger.decoded == 3 * 4 * 9  # a turn and a second try, twice; all are cut


@pytest.mark.parametrize("ticks", [1, 2, 7, 30, 31, 32, 33, 60])
@pytest.mark.parametrize("channel", ["text", "cache"])
def test_budgets_hold(ticks: int, channel: str) -> None:
    result, _ = solve(
        network, "coloring", WORDS, workers=3, graph=TRIANGLE, rounds=2, channel=channel, budget=Budget(ticks=ticks)
    )
    assert result.ledger.ticks <= ticks
    assert (result.answer, result.outcome, result.spent) == (None, "none", "ticks")
    assert notes(result, "outcome")[0]["outcome"] == "stopped"


def test_somebody_leaves_and_somebody_wants_the_answer() -> None:
    def control(kind: str, at: int) -> Callable[[Run], None]:
        def listen(run: Run) -> None:
            count = 0
            whole = run.take_commands

            def take(*, shared: bool = False) -> list[Command]:
                nonlocal count
                count += 1
                if count == at:
                    run.commands.append(Command(kind, "Bob"))
                return whole(shared=shared)

            run.take_commands = take  # type: ignore[method-assign]

        return listen

    options: dict[str, Any] = {"workers": 3, "rounds": 2, "message_tokens": 9, "answer_tokens": 9}
    result = fake().run(network, "leader", control=control("answer", 5), **options)
    assert notes(result, "outcome")[0]["outcome"] == "stopped"
    result = fake().run(network, "leader", control=control("leave", 5), **options)
    assert outcome(result)["malformed"]["left"] == 3  # two rounds and the question
    assert len(result.workers[1].ids) == 5


def test_replay_gives_the_same_run() -> None:
    options: dict[str, Any] = {"workers": 3, "rounds": 1, "message_tokens": 9, "answer_tokens": 9, "channel": "cache"}
    first, _ = solve(network, "leader", **options)
    again, _ = solve(network, "leader", replay=first.trace.events, **options)
    assert not again.differences
    assert again.answer == first.answer
    assert [w.ids for w in again.workers] == [w.ids for w in first.workers]


@pytest.mark.parametrize(("player", "score"), [("flood", 1.0), ("random", 0.0)])
def test_scripts_play_in_the_program_too(player: str, score: float) -> None:
    result, _ = solve(network, task("matching"), workers=16, player=player)
    assert result.score == score
    assert result.ledger.ticks == 0


def test_requests_that_cannot_be() -> None:
    for options, error in (
        ({"problem": "sudoku"}, UnknownName),
        ({"channel": "pigeon"}, UnknownName),
        ({"player": "oracle"}, UnknownName),
        ({"rounds": -1}, BadRequest),
        ({"message_tokens": 0}, BadRequest),
        ({"graph": "0-9"}, BadRequest),
    ):
        with pytest.raises(error):
            solve(network, "coloring", **options)


def test_the_task_names_the_problem_or_adds_to_it() -> None:
    result, _ = solve(network, "Leader", player="flood")
    assert outcome(result)["problem"] == "leader"
    options: dict[str, Any] = {"workers": 2, "problem": "leader", "rounds": 1, "message_tokens": 3, "answer_tokens": 3}
    result, run = solve(network, "Be brief.", **options)
    assert outcome(result)["problem"] == "leader"
    assert "".join(map(chr, block_of(run.workers[0].view.items[0]).ids)).count("Be brief.") == 1


def test_verifier_reads_only_what_network_says() -> None:
    assert verify('{"solved": true}') == 1.0
    for answer in (None, "", "[]", "x", '{"solved": 1}', '{"solved": false}'):
        assert verify(answer) == 0.0
