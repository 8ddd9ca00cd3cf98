"""Message passing on a graph, as in AgentsNet (arXiv 2507.08616): synchronous rounds, neighbours only, one question.

The problems and their scores are in ``kvorum.tasks.agentsnet``, the graphs in ``kvorum.tasks.graphs``.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from kvorum.harness.model_speaker import Channel, ModelSpeaker
from kvorum.harness.speaker import Speaker, scripted
from kvorum.jsontypes import Json
from kvorum.programs.network.message_rounds import MessageRounds, chance, flood
from kvorum.runs.annotations import Help, NonNegativeInt, PositiveInt
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
    problem: Annotated[str, Help(choices=("", *PROBLEMS))] = "",
    graph: str = "smallworld",
    graph_seed: NonNegativeInt = 1825,
    rounds: NonNegativeInt = 0,
    channel: Channel = "text",
    think: bool = True,
    message_tokens: PositiveInt = 512,
    answer_tokens: PositiveInt = 512,
    retries: NonNegativeInt = 1,
    player: Literal["model", "flood", "random"] = "model",
) -> str | None:
    """Every worker is a node of a graph and talks to its neighbours for some rounds; then each answers for itself.

    The answer is JSON: ``outcome`` ("solved", "unsolved", "unanswered" if somebody's answer could not be read),
    ``soft``, ``solved``, ``answers`` and counts of what was malformed. A run whose budget ends first has no answer. The
    task's text names the problem or is a further instruction to everyone.

    Args:
        problem: The problem; by default what the task's text names, else coloring.
        graph: A family (smallworld, scalefree, delaunay), or edges such as 0-1,1-2.
        graph_seed: The seed of the graph within its family.
        rounds: Exchanges of messages; 0 is the published number.
        think: Ask for thoughts before each message and answer.
        message_tokens: The most tokens of a turn with messages.
        answer_tokens: The most tokens of a turn with an answer.
        retries: How often a worker is asked again whose words could not be read.
        player: Who plays: the model, a script that tells everything it knows, or one that answers at random.
    """
    named = run.task.prompt.strip().lower()
    task = find(problem or (named if named in PROBLEMS else "coloring"))
    net = graphs.make(graph, [worker.name for worker in run.workers], graph_seed)
    model = ModelSpeaker(run, channel)
    speaker: Speaker = model
    if player != "model":
        speaker = scripted(flood(net, task) if player == "flood" else chance(net, task, run.seed))
    extra = "" if named == task.name else run.task.prompt.strip()
    game = MessageRounds(net, task, rounds or task.rounds(net), think, extra, message_tokens, answer_tokens, retries)
    game.link, game.note = run.injections.link, run.note
    run.note("network", edges=[list(edge) for edge in net.edges], rounds=game.rounds, problem=task.name)
    answers = await game.play(speaker)
    score = task.score(net, answers)
    result: dict[str, Json] = {
        "problem": task.name,
        "outcome": "solved" if score.solved else "unanswered" if None in answers.values() else "unsolved",
        "soft": score.soft,
        "solved": score.solved,
        "answers": answers,
        "nodes": len(net),
        "rounds": game.rounds,
        "malformed": dict(game.malformed),
    }
    run.note("outcome", **result | ({"outcome": "stopped"} if model.over else {}))
    return None if model.over and None in answers.values() else json.dumps(result, ensure_ascii=False)
