"""Message passing on a graph, as in AgentsNet (arXiv 2507.08616): synchronous rounds, neighbours only, one question.

The problems and their scores are in ``kvorum.tasks.agentsnet``, the graphs in ``kvorum.tasks.graphs``.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from kvorum.harness.speech import Speaker, scripted
from kvorum.harness.voices import Channel, Voices
from kvorum.jsontypes import Json
from kvorum.programs.network import scripts
from kvorum.programs.network.exchange import Exchange
from kvorum.runs.annotations import Help
from kvorum.runs.program import program
from kvorum.runs.run import Run
from kvorum.tasks import graphs
from kvorum.tasks.agentsnet import PROBLEMS, find


@program(
    "network",
    "message passing on a graph: colouring, cover, matching, leader, consensus",
    workers=4,
    exchange="messages",
    own_tasks=True,
    channels={"text": {"channel": "text"}, "cache": {"channel": "cache"}},
    real="cache",
)
async def network(
    run: Run,
    *,
    problem: Annotated[
        str, Help("The problem; by default what the task's text names, else coloring.", choices=("", *PROBLEMS))
    ] = "",
    graph: Annotated[str, Help(f"A family ({', '.join(graphs.FAMILIES)}), or edges such as 0-1,1-2.")] = "smallworld",
    graph_seed: Annotated[int, Help("The seed of the graph within its family.", low=0)] = 1825,
    rounds: Annotated[int, Help("Exchanges of messages; 0 is the published number.", low=0)] = 0,
    channel: Channel = "text",
    think: Annotated[bool, Help("Ask for thoughts before each message and answer.")] = True,
    message_tokens: Annotated[int, Help("The most tokens of a turn with messages.", low=1)] = 512,
    answer_tokens: Annotated[int, Help("The most tokens of a turn with an answer.", low=1)] = 512,
    retries: Annotated[int, Help("How often a worker is asked again whose words could not be read.", low=0)] = 1,
    player: Annotated[
        Literal["model", "flood", "random"],
        Help("Who plays: the model, a script that tells everything it knows, or one that answers at random."),
    ] = "model",
) -> str | None:
    """Every worker is a node of a graph and talks to its neighbours for some rounds; then each answers for itself.

    The answer is JSON: ``outcome`` ("solved", "unsolved", "unanswered" if somebody's answer could not be read),
    ``soft``, ``solved``, ``answers`` and counts of what was malformed. A run whose budget ends first has no answer. The
    task's text names the problem or is a further instruction to everyone.
    """
    named = run.task.prompt.strip().lower()
    task = find(problem or (named if named in PROBLEMS else "coloring"))
    net = graphs.make(graph, [worker.name for worker in run.workers], graph_seed)
    voices = Voices(run, channel)
    speaker: Speaker = voices
    if player != "model":
        script = scripts.flood(net, task) if player == "flood" else scripts.chance(net, task, run.seed)
        speaker = scripted(script)
    extra = "" if named == task.name else run.task.prompt.strip()
    game = Exchange(net, task, rounds or task.rounds(net), think, extra, message_tokens, answer_tokens, retries)
    game.link, game.tell = run.injections.link, run.note
    run.note("network", edges=[list(edge) for edge in net.edges], rounds=game.rounds, problem=task.name)
    answers = await game.play(speaker)
    score = task.score(net, answers)
    outcome = "solved" if score.solved else "unanswered" if None in answers.values() else "unsolved"
    told: dict[str, Json] = {
        "problem": task.name,
        "outcome": outcome,
        "soft": score.soft,
        "solved": score.solved,
        "answers": answers,
    }
    told |= {"nodes": len(net), "rounds": game.rounds, "malformed": dict(game.malformed)}
    run.note("outcome", **told | ({"outcome": "stopped"} if voices.over else {}))
    return None if voices.over and None in answers.values() else json.dumps(told, ensure_ascii=False)
