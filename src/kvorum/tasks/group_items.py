"""The graph problems and valid consensus as items: for the programs ``network`` and ``consensus``.

A team's answer is the JSON that the program writes; its score is computed again from what every node answered. One
worker that is given everything answers for all nodes, in lines such as "Alice: Yes".
"""

from __future__ import annotations

import json
import random

from kvorum.errors import UnknownName
from kvorum.jsontypes import JsonObject
from kvorum.tasks import consensus, graphs
from kvorum.tasks.agentsnet import Answers, find, solution
from kvorum.tasks.answers import assign, joined
from kvorum.tasks.item import Item, Score
from kvorum.wording import unknown


def graph(seed: int, names: tuple[str, ...], *, problem: str = "coloring", family: str = "scalefree") -> Item:
    """One of the five problems of AgentsNet on a graph of a family; ``seed`` picks the graph."""
    kind = find(problem)
    if family not in graphs.FAMILIES:
        raise UnknownName(unknown("family of graphs", family, graphs.FAMILIES))
    net = graphs.make(family, names, seed)
    options = {name: kind.options(net, name) for name in names}
    edges = "; ".join(f"{a} and {b}" for a, b in net.edges)
    asked = joined({name: " or ".join(options[name]) for name in names})

    def score(answer: str | None) -> Score:
        found = kind.score(net, _answers(answer, names))
        return Score(found.soft, found.solved)

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
        params={"problem": problem, "graph": family, "graph_seed": seed},
        programs=("network",),
    )


def agreement(
    seed: int, names: tuple[str, ...], *, byzantine: int = 0, rounds: int = 10, quorum: str = "honest"
) -> Item:
    """The valid-consensus game: honest workers must agree on a value with which one of them began."""
    game = consensus.deal(names, byzantine, seed=seed, quorum=quorum)
    initial = sorted(game.initial.values())

    def score(answer: str | None) -> Score:
        found = _object(answer)
        value = found.get("value") if found.get("outcome") == "valid" else None
        if not found and (answer or "").strip().lstrip("-").isdecimal():
            value = int(answer or "")
        return Score(float(value in initial), value in initial)

    def guess(draw: random.Random) -> str:
        """Every honest worker holds a random value."""
        held = {draw.randint(game.low, game.high) for _ in game.honest}
        return json.dumps({"outcome": "valid" if len(held) == 1 else "invalid", "value": min(held)})

    told = "\n".join(f"{name} began with {value}." for name, value in game.initial.items())
    return Item(
        "agreement",
        seed,
        "agree",
        score,
        str(consensus.median(initial, byzantine)),
        guess,
        str((game.low + game.high) // 2),
        whole=f"{told}\nName a value with which one of them began. The answer is that number.",
        params={"byzantine": byzantine, "rounds": rounds, "game_seed": seed, "quorum": quorum},
        programs=("consensus",),
    )


def _answers(answer: str | None, names: tuple[str, ...]) -> Answers:
    found = _object(answer).get("answers")
    if isinstance(found, dict):
        return {name: str(found[name]) for name in names if isinstance(found.get(name), str)}
    return assign(answer or "", names)


def _object(answer: str | None) -> JsonObject:
    try:
        found = json.loads(answer or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
