"""AgentsNet: its graphs and scores are the published ones, and scripts reach their ceilings and floors."""

from __future__ import annotations

import itertools
import statistics
from functools import cache

import networkx as nx
import numpy as np
import pytest

from kvorum.errors import BadRequest
from kvorum.harness.speaker import Turn
from kvorum.programs.network.message_rounds import chance, flood
from kvorum.tasks import graphs
from kvorum.tasks.agentsnet import MARK, PROBLEMS, find, read_answer
from network_play import names, play


@cache
def made(kind: str, nodes: int, seed: int) -> nx.Graph:
    return graphs.make(kind, names(nodes), seed)


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
