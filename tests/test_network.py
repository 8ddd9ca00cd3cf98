"""network: protocol and scoring without a model, floors and ceilings, and the views of both channels."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
from collections.abc import Callable
from functools import cache
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from kvorum import Budget, Run
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.speaker import Quote, Turn, scripted
from kvorum.kv import Span
from kvorum.programs.network.message_rounds import MessageRounds, chance, flood
from kvorum.programs.network.network import network
from kvorum.runs.steering import Command
from kvorum.tasks import graphs
from kvorum.tasks.agentsnet import MARK, PROBLEMS, find, read_answer, task, verify
from scripted_workers import BABBLE, Record, block_of, dense, engine, notes, outcome, solve, start, thread, together

TRIANGLE = "0-1,1-2,2-0"


def names(count: int) -> list[str]:
    return [f"N{at:02d}" for at in range(count)]


@cache
def made(kind: str, nodes: int, seed: int) -> nx.Graph:
    return graphs.make(kind, names(nodes), seed)


def play(
    graph: nx.Graph, problem: str, script: Callable[[str, Turn], str], rounds: int = 0
) -> tuple[MessageRounds, Any]:
    kind = find(problem)
    exchange = MessageRounds(graph, kind, rounds or kind.rounds(graph))
    return exchange, asyncio.run(exchange.play(scripted(script)))


# -- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "nodes", "edges", "diameter", "degree"),
    [  # statistics of 30 seeds of the published generators
        ("smallworld", 8, 16.0, 2.3, 5.4),
        ("scalefree", 8, 12.0, 2.8, 5.4),
        ("delaunay", 4, 5.3, 1.7, 3.0),
        ("delaunay", 8, 15.6, 2.6, 5.6),
        ("scalefree", 16, 28.0, 3.6, 9.3),
        ("delaunay", 16, 37.8, 3.7, 6.9),
    ],
)
def test_families_have_the_published_statistics(
    kind: str, nodes: int, edges: float, diameter: float, degree: float
) -> None:
    drawn = [made(kind, nodes, seed) for seed in range(30)]
    assert statistics.mean(graph.number_of_edges() for graph in drawn) == pytest.approx(edges, abs=0.06)
    assert statistics.mean(nx.diameter(graph) for graph in drawn) == pytest.approx(diameter, abs=0.06)
    assert statistics.mean(max(d for _, d in graph.degree) for graph in drawn) == pytest.approx(degree, abs=0.1)


def test_delaunay_is_a_triangulation_with_empty_circles() -> None:
    for seed in range(10):
        graph, points = graphs.delaunay(12, seed), np.random.RandomState(seed).rand(12, 2)
        for a, b in graph.edges:  # some circle through both is empty: its centre on their bisector bounds each point
            middle, across = (points[a] + points[b]) / 2, (points[b] - points[a])[::-1] * [-1, 1]
            low, high = -np.inf, np.inf
            for point in np.delete(points, [a, b], axis=0):
                slope = 2 * across @ (points[a] - point)
                at = (np.sum((middle - points[a]) ** 2) - np.sum((middle - point) ** 2)) / slope
                low, high = (max(low, at), high) if slope > 0 else (low, min(high, at))
            assert low <= high
        hull = 0
        for a, b in itertools.combinations(range(12), 2):  # an edge of the hull has all others on one side
            (x, y), rest = points[b] - points[a], np.delete(points, [a, b], axis=0) - points[a]
            hull += len(set(np.sign(x * rest[:, 1] - y * rest[:, 0]))) == 1
        assert nx.check_planarity(graph)[0]
        assert graph.number_of_edges() == 3 * 12 - 3 - hull


def test_any_graph_survives_as_edges() -> None:
    ring = nx.cycle_graph(5)
    again = graphs.make(graphs.edges(ring), names(5), 0)
    assert nx.utils.graphs_equal(nx.relabel_nodes(ring, dict(enumerate(names(5)))), again)


@pytest.mark.parametrize("kind", ["", "torus", "0-0", "0-5", "0-1-2", "0-1"])
def test_graphs_that_cannot_be(kind: str) -> None:
    with pytest.raises(BadRequest):
        graphs.make(kind, names(3), 0)
    with pytest.raises(BadRequest, match="two"):
        graphs.make("smallworld", names(1), 0)


@pytest.mark.parametrize("kind", graphs.FAMILIES)
@pytest.mark.parametrize("nodes", [2, 3])
def test_the_smallest_networks(kind: str, nodes: int) -> None:
    assert nx.is_connected(graphs.make(kind, names(nodes), 1))


def test_rounds_are_the_published_ones() -> None:
    path = nx.path_graph(6)
    assert [find(name).rounds(path) for name in PROBLEMS] == [5, 5, 5, 11, 11]
    assert [find("coloring").rounds(nx.complete_graph(n)) for n in (4, 8, 16, 20)] == [4, 5, 6, 3]


# -- scores ----------------------------------------------------------------------------------------------------------

PATH = nx.relabel_nodes(nx.path_graph(4), dict(enumerate("ABCD")))


@pytest.mark.parametrize(
    ("problem", "answers", "soft", "solved"),
    [
        ("coloring", ["Group 1", "Group 2", "Group 1", "Group 3"], 1.0, True),
        ("coloring", ["Group 1", "Group 2", "Group 2", "Group 3"], 2 / 3, False),
        ("coloring", ["Group 1", "Group 2", "Group 1", None], 0.0, False),
        ("coloring", ["Group 1", "Group 2", "Group 1", "Group 4"], 0.0, False),
        ("vertex-cover", ["No", "Yes", "Yes", "No"], 1.0, True),
        ("vertex-cover", ["Yes", "No", "Yes", "No"], 1.0, True),
        ("vertex-cover", ["Yes", "Yes", "Yes", "No"], 1 / 3, False),  # neither of the first two is needed
        ("vertex-cover", ["No", "Yes", "No", "No"], 2 / 3, False),  # incomplete: its coverage
        ("vertex-cover", ["No", "No", "No", "No"], 0.0, False),  # published: a division by zero
        ("vertex-cover", [None, "Yes", "Yes", "No"], 1.0, False),  # published: solved
        ("matching", ["B", "A", "D", "C"], 1.0, True),
        ("matching", ["None", "C", "B", "None"], 1.0, True),
        ("matching", ["B", "A", "None", "None"], 0.5, False),
        ("matching", ["B", "C", "B", None], 0.5, False),
        ("leader", ["No", "Yes", "No", "No"], 1.0, True),
        ("leader", ["No", "Yes", "Yes", "No"], 0.0, False),
        ("leader", ["No", "Yes", None, "No"], 0.0, False),
        ("consensus", ["1", "1", "1", "1"], 1.0, True),
        ("consensus", ["1", "1", "1", "0"], 0.0, False),
        ("consensus", [None, None, None, None], 0.0, False),
    ],
)
def test_scores(problem: str, answers: list[str | None], soft: float, solved: bool) -> None:
    score = find(problem).score(PATH, dict(zip("ABCD", answers, strict=True)))
    assert score.soft == pytest.approx(soft)
    assert score.solved == solved


def test_answers_are_read_to_their_end() -> None:
    options = [f"Group {number}" for number in range(1, 13)]
    assert read_answer(f"{MARK} Group 12", options) == "Group 12"  # published: Group 1
    assert read_answer(f"{MARK}: **Group 1**.", options) == "Group 1"
    assert read_answer(f"I'd end with {MARK} and the group.\n{MARK}\n\nGroup 3", options) == "Group 3"
    assert read_answer(f"{MARK} Group 13", options) is None
    assert read_answer("Group 1", options) is None
    assert read_answer(f"{MARK} Anna", ["Ann", "Anna", "None"]) == "Anna"


# -- ceilings and floors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("nodes", [4, 8, 16])
def test_flooding_solves_everything(problem: str, nodes: int) -> None:
    for kind in graphs.FAMILIES:
        for seed in graphs.SEEDS:
            graph = graphs.make(kind, names(nodes), seed)
            exchange, answers = play(graph, problem, flood(graph, find(problem)))
            assert find(problem).score(graph, answers).solved
            assert not exchange.malformed


def test_flooding_needs_its_rounds() -> None:
    first, *rest = names(9)
    path = nx.path_graph([first, *reversed(rest)])
    _, far = play(path, "leader", flood(path, find("leader")), rounds=8)
    _, near = play(path, "leader", flood(path, find("leader")), rounds=3)
    assert find("leader").score(path, far).solved
    assert near[rest[0]] == "Yes"  # it has not heard of the first


@pytest.mark.parametrize(
    ("problem", "nodes", "soft", "solved"),
    [  # ranges over the families of uniform random play; the margins are three standard errors of 300 plays
        ("coloring", 4, (0.74 - 0.05, 0.74 + 0.05), (0.09 - 0.05, 0.28 + 0.08)),
        ("coloring", 16, (0.86 - 0.01, 0.90 + 0.01), (0.0, 0.05 + 0.04)),
        ("vertex-cover", 4, (0.61 - 0.05, 0.69 + 0.05), (0.0, 0.35)),
        ("vertex-cover", 16, (0.75 - 0.03, 0.75 + 0.03), (0.0, 0.03)),
        ("matching", 4, (0.29 - 0.05, 0.38 + 0.05), (0.0, 0.1)),
        ("matching", 16, (0.21 - 0.02, 0.30 + 0.02), (0.0, 0.0)),
    ],
)
def test_random_play_reaches_the_floor_and_no_more(
    problem: str, nodes: int, soft: tuple[float, float], solved: tuple[float, float]
) -> None:
    kind = find(problem)
    for family in graphs.FAMILIES:
        scores = []
        for seed in range(300):
            graph = made(family, nodes, seed)
            say = chance(graph, kind, seed + 1000)
            question = Turn([MARK], wants="answer")
            answers = {node: read_answer(say(node, question), kind.options(graph, node)) for node in graph}
            scores.append(kind.score(graph, answers))
        assert soft[0] <= statistics.mean(score.soft for score in scores) <= soft[1], family
        assert solved[0] <= statistics.mean(score.solved for score in scores) <= solved[1], family


@pytest.mark.parametrize(("nodes", "low", "high"), [(4, 0.58, 1.0), (8, 0.24, 0.40), (16, 0.02, 0.04)])
def test_leader_by_names_alone(nodes: int, low: float, high: float) -> None:
    """ "Yes if my name sorts before all my neighbours'": the floor of leader election without a message."""
    for family in graphs.FAMILIES:
        solved = []
        for seed in range(300):
            graph = made(family, nodes, seed)
            answers = {node: "Yes" if node < min(graph[node]) else "No" for node in graph}
            solved.append(find("leader").score(graph, answers).solved)
        assert low - 0.09 <= statistics.mean(solved) <= high + 0.09, family


@pytest.mark.parametrize(("problem", "soft"), [("coloring", 0), ("vertex-cover", 0), ("matching", 0), ("consensus", 1)])
def test_everyone_says_the_same(problem: str, soft: float) -> None:
    answer = {"coloring": "Group 1", "vertex-cover": "Yes", "matching": "None", "consensus": "0"}[problem]
    graph = graphs.make("smallworld", names(8), 1)
    _, answers = play(graph, problem, lambda name, turn: f"{MARK} {answer}" if turn.wants == "answer" else "{}")
    assert find(problem).score(graph, answers).soft == soft


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
    _, run = exchange_on_engine("text")
    assert record.error() < 1e-9
    for worker in run.workers:
        assert worker.view.own is not None
        assert worker.view.own.logits is not None
        assert torch.allclose(worker.view.own.logits, dense(worker.view.ids), atol=1e-9)


def test_cache_messages_are_the_senders_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch)
    result, run = exchange_on_engine("cache")
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

    before = engine().ledger.ticks
    shared = together(runs())
    ticks = engine().ledger.ticks - before
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
    result = engine().run(network, "leader", control=control("answer", 5), **options)
    assert notes(result, "outcome")[0]["outcome"] == "stopped"
    result = engine().run(network, "leader", control=control("leave", 5), **options)
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
