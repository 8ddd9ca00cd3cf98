"""Scripted players of the network problems: the ceiling that rounds and topology allow, and the floor of blind play.

A script speaks for all workers; of a worker it uses only what that worker knows: its neighbours and what it was told.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from kvorum.harness.speech import Quote, Script, Turn
from kvorum.tasks.agentsnet import MARK, Problem, solution

if TYPE_CHECKING:
    import networkx as nx


def flood(graph: nx.Graph, problem: Problem) -> Script:
    """Everyone tells all neighbours all edges it knows of; in the end each solves what it knows by one agreed rule."""
    import networkx as nx

    known: dict[str, set[tuple[str, str]]] = {node: {(node, other) for other in graph[node]} for node in graph}

    def say(name: str, turn: Turn) -> str:
        for part in turn.parts:
            if isinstance(part, Quote):
                known[name] |= {(a, b) for a, b in json.loads(part.text)}
        if MARK in turn.text:
            return f"{MARK} {solution(nx.Graph(known[name]), problem.name)[name]}"
        return json.dumps({other: json.dumps(sorted(known[name])) for other in graph[name]})

    return say


def chance(graph: nx.Graph, problem: Problem, seed: int) -> Script:
    """Nobody sends anything and everyone answers uniformly at random."""
    draw = random.Random(seed)
    return lambda name, turn: f"{MARK} {draw.choice(problem.options(graph, name))}" if MARK in turn.text else "{}"
