"""Rounds of AgentsNet, played by a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import networkx as nx

from kvorum.harness.speaker import Turn, scripted
from kvorum.programs.network.message_rounds import MessageRounds
from kvorum.tasks.agentsnet import find


def names(count: int) -> list[str]:
    return [f"N{at:02d}" for at in range(count)]


def play(
    graph: nx.Graph, problem: str, script: Callable[[str, Turn], str], rounds: int = 0
) -> tuple[MessageRounds, Any]:
    kind = find(problem)
    exchange = MessageRounds(graph, kind, rounds or kind.rounds(graph))
    return exchange, asyncio.run(exchange.play(scripted(script)))
