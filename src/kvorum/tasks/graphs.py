"""The graphs of AgentsNet (arXiv 2507.08616): three families, by the published generators and parameters.

Nodes are workers' names. Same family, size and seed: the same graph as published, up to the names. Not covered: the
published data set itself, whose names were drawn with another generator.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvorum.errors import BadRequest

if TYPE_CHECKING:  # its import takes half a second of every start: it is made where there is a graph to make
    import networkx as nx

SEEDS = (1825, 410, 4507)
"""The published seeds: the first three integers from 1 to 10000 of Python's generator seeded with 42."""


def smallworld(nodes: int, seed: int) -> nx.Graph:
    """Connected Watts–Strogatz, 4 neighbours, rewiring 0.4. Four nodes are the complete graph."""
    import networkx as nx

    return nx.connected_watts_strogatz_graph(nodes, min(4, nodes), 0.4, seed=seed)


def scalefree(nodes: int, seed: int) -> nx.Graph:
    """Barabási–Albert, 2 edges per new node."""
    import networkx as nx

    return nx.barabasi_albert_graph(nodes, min(2, nodes - 1), seed=seed)


def delaunay(nodes: int, seed: int) -> nx.Graph:
    """Delaunay triangulation of uniform points in the unit square: triples whose circumcircle holds no other point.

    Trying all triples takes n⁴ steps, which is nothing for a team, and spares the dependency on scipy.
    """
    import networkx as nx

    points = np.random.RandomState(seed).rand(nodes, 2)
    if nodes < 3:
        return nx.path_graph(nodes)
    graph = nx.empty_graph(nodes)
    lifted = np.column_stack([points, (points**2).sum(1)])
    triples = np.array(list(itertools.combinations(range(nodes), 3)))
    a, b, c = (lifted[triples[:, corner]] for corner in range(3))
    normal = np.cross(b - a, c - a)
    normal *= -np.sign(normal[:, 2:])
    below = normal @ lifted.T - (normal * a).sum(1, keepdims=True)  # positive: inside the circumcircle
    np.put_along_axis(below, triples, 0.0, axis=1)
    for corners in triples[(below <= 0).all(1)].tolist():
        nx.add_cycle(graph, corners)
    return graph


FAMILIES: dict[str, Callable[[int, int], nx.Graph]] = {
    "smallworld": smallworld,
    "scalefree": scalefree,
    "delaunay": delaunay,
}
KEYS = {"ws": "smallworld", "ba": "scalefree", "dt": "delaunay"}
"""The published names of the families."""


def make(kind: str, names: Sequence[str], seed: int) -> nx.Graph:
    """A connected graph whose nodes are ``names``: a family, or edges such as "0-1,1-2,2-0" between the names in order.

    Names are dealt to a family's nodes at random, so that the first ones are not always its hubs.

    Raises:
        BadRequest: unknown family, edges that cannot be read, a graph that is not connected, fewer than two names.
    """
    import networkx as nx

    if len(names) < 2:
        raise BadRequest("A network needs at least two workers.")
    family = FAMILIES.get(KEYS.get(kind, kind))
    if family is not None:
        graph = family(len(names), seed)
        dealt = list(names)
        random.Random(seed).shuffle(dealt)
        return nx.relabel_nodes(graph, dict(zip(sorted(graph), dealt, strict=True)))
    graph = nx.empty_graph(len(names))
    for edge in kind.split(","):
        ends = [int(end) if end.strip().isdecimal() else -1 for end in edge.split("-")]
        if len(ends) != 2 or ends[0] == ends[1] or not all(0 <= end < len(names) for end in ends):
            raise BadRequest(
                f"graph={kind}: {edge!r} is neither a family ({', '.join(FAMILIES)}) nor an edge such as 0-1 between "
                f"two of the {len(names)} workers."
            )
        graph.add_edge(*ends)
    if not nx.is_connected(graph):
        raise BadRequest(f"graph={kind} leaves workers out: every worker must be reachable.")
    return nx.relabel_nodes(graph, dict(enumerate(names)))


def edges(graph: nx.Graph) -> str:
    """Any graph as the text that ``make`` reads: its nodes in order become the workers in order."""
    order = {node: at for at, node in enumerate(graph)}
    return ",".join(f"{order[a]}-{order[b]}" for a, b in graph.edges)
