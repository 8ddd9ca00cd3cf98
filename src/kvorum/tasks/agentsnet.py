"""The five problems of AgentsNet (arXiv 2507.08616): what is asked, which answers there are, and their scores.

Scores are the published ones. ``solved`` wants the full score, and an answer from everyone, which the published code
leaves out for vertex cover. Published defects avoided: "Group 12" is not read as "Group 1" nor "Ann" as "Anna", a cover
without any coordinator scores 0 instead of dividing by it, and marks around an answer do no harm. Wording is our own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvorum.runs.program import Task
from kvorum.tasks import graphs
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import Score, assign, joined, json_answer
from kvorum.wording import check_known

if TYPE_CHECKING:  # see graphs.py
    import networkx as nx

MARK = "### Final Answer ###"
"""What stands before an answer."""

Answers = Mapping[str, str | None]
"""What each node answered; None: nothing that could be read."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One of the five. ``goal`` and ``request`` are told at the start, ``question`` at the end."""

    name: str
    goal: str
    request: Callable[[nx.Graph], str]
    question: str
    options: Callable[[nx.Graph, str], list[str]]
    soft: Callable[[nx.Graph, Answers], float]
    everywhere: bool = False
    """Whether the rounds must let news cross the whole graph."""

    def rounds(self, graph: nx.Graph) -> int:
        """Published number of message exchanges: 2 D + 1, or 4, 5, 6 for local problems on up to 4, 8, 16 nodes."""
        if self.everywhere or len(graph) > 16:
            import networkx as nx

            return 2 * int(nx.diameter(graph)) + 1
        return 4 if len(graph) <= 4 else 5 if len(graph) <= 8 else 6

    def score(self, graph: nx.Graph, answers: Answers) -> Score:
        """The score from 0 to 1 of what everyone answered, by the published rule of the problem."""
        soft = self.soft(graph, answers)
        return Score(soft, soft == 1.0 and all(answers.get(node) is not None for node in graph))


def groups(graph: nx.Graph) -> list[str]:
    """The groups of the colouring problem: one more than the largest degree."""
    return [f"Group {number + 1}" for number in range(max(degree for _, degree in graph.degree) + 1)]


def _coloring(graph: nx.Graph, answers: Answers) -> float:
    if not all(answers.get(node) in groups(graph) for node in graph):
        return 0.0
    good = [answers[a] != answers[b] for a, b in graph.edges]
    return sum(good) / len(good)


def _cover(graph: nx.Graph, answers: Answers) -> float:
    """Coverage times the share of coordinators that are needed: those without whom less than everything is covered."""
    chosen = {node for node in graph if answers.get(node) == "Yes"}

    def coverage(by: set[str]) -> float:
        covered = [a in by or b in by for a, b in graph.edges]
        return sum(covered) / len(covered)

    needed = sum(coverage(chosen - {node}) < 1 for node in chosen)
    return coverage(chosen) * needed / len(chosen) if chosen else 0.0


def _matching(graph: nx.Graph, answers: Answers) -> float:
    def wrong(node: str) -> bool:
        partner = answers.get(node)
        if partner == "None":
            return any(answers.get(other) == "None" for other in graph[node])
        return partner is None or partner not in graph[node] or answers.get(partner) != node

    return 1 - sum(map(wrong, graph)) / len(graph)


def _leader(graph: nx.Graph, answers: Answers) -> float:
    given = [answers.get(node) for node in graph]
    return float(given.count("Yes") == 1 and given.count("No") == len(given) - 1)


def _consensus(graph: nx.Graph, answers: Answers) -> float:
    given = {answers.get(node) for node in graph}
    return float(given in ({"0"}, {"1"}))


_YES_NO = ["Yes", "No"]

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        Problem(
            "coloring",
            "All agents together divide into groups so that no two neighbors are in the same group.",
            lambda graph: (
                f"say which group you join. There are exactly {len(groups(graph))} groups, Group 1 to "
                f"Group {len(groups(graph))}. Join one of them; none of your neighbors may be in it."
            ),
            "Which group do you join?",
            lambda graph, node: groups(graph),
            _coloring,
        ),
        Problem(
            "vertex-cover",
            "All agents together choose coordinators so that of any two neighbors at least one is a coordinator, and "
            "every coordinator has at least one neighbor who is not.",
            lambda graph: "say whether you are a coordinator, Yes or No.",
            "Are you a coordinator?",
            lambda graph, node: _YES_NO,
            _cover,
        ),
        Problem(
            "matching",
            "All agents together form pairs of neighbors.",
            lambda graph: (
                "name the neighbor with whom you form a pair, or None if all your neighbors are in pairs with others. "
                "Nobody is in two pairs, and the two of a pair name each other."
            ),
            "With which neighbor do you form a pair? Answer None if all your neighbors are in pairs with others.",
            lambda graph, node: [*graph[node], "None"],
            _matching,
        ),
        Problem(
            "leader",
            "All agents together choose a single leader.",
            lambda graph: "say whether you are the leader, Yes or No. Exactly one agent says Yes and all others No.",
            "Are you the leader?",
            lambda graph, node: _YES_NO,
            _leader,
            everywhere=True,
        ),
        Problem(
            "consensus",
            "All agents agree on one value, either 0 or 1.",
            lambda graph: "name a value, 0 or 1. All agents must name the same one.",
            "Which value have you agreed on?",
            lambda graph, node: ["0", "1"],
            _consensus,
            everywhere=True,
        ),
    )
}


def find(name: str) -> Problem:
    """The problem of that name. Raises UnknownName."""
    check_known("network problem", name, PROBLEMS)
    return PROBLEMS[name]


def solution(graph: nx.Graph, problem: str) -> dict[str, str]:
    """A full solution of the problem of that name, by going through the names in order and taking what is free."""
    order = sorted(graph)
    chosen: dict[str, str] = {}
    if problem == "coloring":
        for node in order:
            taken = {chosen.get(other) for other in graph[node]}
            chosen[node] = next(group for group in groups(graph) if group not in taken)
    elif problem == "vertex-cover":  # all but a maximal independent set
        for node in order:
            chosen[node] = "Yes" if any(chosen.get(other) == "No" for other in graph[node]) else "No"
    elif problem == "matching":
        for node in order:
            free = [other for other in sorted(graph[node]) if other not in chosen]
            if node not in chosen and free:
                chosen |= {node: free[0], free[0]: node}
        chosen = {node: chosen.get(node, "None") for node in order}
    elif problem == "leader":
        chosen = {node: "Yes" if node == order[0] else "No" for node in order}
    else:
        chosen = dict.fromkeys(order, "0")
    return chosen


def read_answer(text: str, options: Sequence[str]) -> str | None:
    """The option behind the last mark that is followed by one, or None. The longest that fits is meant."""
    longest = sorted(options, key=len, reverse=True)
    pattern = rf"{MARK}[\s:*_`'\"]*({'|'.join(map(re.escape, longest))})(?!\w)"
    found = re.findall(pattern, text)
    return str(found[-1]) if found else None


def task(name: str) -> Task:
    """One of the problems as a task of the program ``network``; its verifier gives 1 for solved."""
    return Task(find(name).name, verify, f"agentsnet-{name}")


def verify(answer: str | None) -> float:
    """1 if the answer of a run of ``network`` says that its problem is solved."""
    return float(json_answer(answer).get("solved") is True)


def graph_item(seed: int, names: tuple[str, ...], *, problem: str = "coloring", family: str = "scalefree") -> Item:
    """One of the problems on a graph of a family, which ``seed`` picks, for the program ``network``.

    A team's answer is the JSON that the program writes; its score is computed again from what every node answered. One
    worker that is given everything answers for all nodes, in lines such as "Alice: Yes".
    """
    kind = find(problem)
    check_known("family of graphs", family, graphs.FAMILIES)
    net = graphs.make(family, names, seed)
    options = {name: kind.options(net, name) for name in names}
    edges = "; ".join(f"{a} and {b}" for a, b in net.edges)
    asked = joined({name: " or ".join(options[name]) for name in names})

    def score(answer: str | None) -> Score:
        found = json_answer(answer).get("answers")
        if not isinstance(found, dict):
            return kind.score(net, assign(answer or "", names))
        return kind.score(net, {name: str(found[name]) for name in names if isinstance(found.get(name), str)})

    def guess(draw: random.Random) -> str:
        return joined({name: draw.choice(options[name]) for name in names})

    return Item(
        f"graph-{problem}",
        seed,
        kind.name,
        score,
        joined(solution(net, kind.name)),
        guess,
        joined({name: options[name][-1] for name in names}),
        whole=f"Some agents are neighbors: {edges}.\n{kind.goal}\nAnswer for every agent, in this form: {asked}",
        given={"network": {"problem": problem, "graph": family, "graph_seed": seed}},
        programs=("network",),
    )
