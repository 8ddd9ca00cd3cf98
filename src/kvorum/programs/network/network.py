"""Message passing on a graph, as in AgentsNet (arXiv 2507.08616): synchronous rounds, neighbours only, one question.

The problems and their scores are in ``kvorum.tasks.agentsnet``, the graphs in ``kvorum.tasks.graphs``.
"""

from __future__ import annotations

import json

from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.speech import Speaker, scripted
from kvorum.harness.voices import Voices
from kvorum.programs.network import scripts
from kvorum.programs.network.exchange import Exchange
from kvorum.runs.run import Run, program
from kvorum.tasks import graphs
from kvorum.tasks.agentsnet import PROBLEMS, find

PLAYERS = ("model", "flood", "random")


@program("network", "message passing on a graph: colouring, cover, matching, leader, consensus", workers=4)
async def network(
    run: Run,
    *,
    problem: str = "",
    graph: str = "smallworld",
    graph_seed: int = 1825,
    rounds: int = 0,
    channel: str = "text",
    think: bool = True,
    message_tokens: int = 512,
    answer_tokens: int = 512,
    retries: int = 1,
    player: str = "model",
) -> str | None:
    """Every worker is a node of a graph and talks to its neighbours for some rounds; then each answers for itself.

    The answer is JSON: ``outcome`` ("solved", "unsolved", "unanswered" if somebody's answer could not be read),
    ``soft``, ``solved``, ``answers`` and counts of what was malformed. A run whose budget ends first has no answer.

    Args:
        problem: "coloring", "vertex-cover", "matching", "leader" or "consensus". The task's text may name it instead;
            any other text is a further instruction to everyone.
        graph: "smallworld", "scalefree", "delaunay", or edges such as "0-1,1-2". graph_seed: of the family.
        rounds: message exchanges; 0 is the published number. channel: messages as "text" or as "cache".
        think: ask for thoughts before each message and answer. message_tokens, answer_tokens: the most per turn.
        retries: how often a worker is asked again. player: the "model", or the scripts "flood" and "random".
    """
    named = run.task.prompt.strip().lower()
    task = find(problem or (named if named in PROBLEMS else "coloring"))
    if player not in PLAYERS:
        raise UnknownName(f"There is no player {player!r}; there are: {', '.join(PLAYERS)}.")
    if min(rounds, retries, message_tokens - 1, answer_tokens - 1) < 0:
        raise BadRequest("rounds and retries must be at least 0, message_tokens and answer_tokens at least 1.")
    net = graphs.make(graph, [worker.name for worker in run.workers], graph_seed)
    voices = Voices(run, channel)
    speaker: Speaker = voices
    if player != "model":
        script = scripts.flood(net, task) if player == "flood" else scripts.chance(net, task, run.seed)
        speaker = scripted(script)
    extra = "" if named == task.name else run.task.prompt.strip()
    game = Exchange(net, task, rounds or task.rounds(net), think, extra, message_tokens, answer_tokens, retries)
    game.link, game.tell = run.injected.link, run.note
    run.note("network", edges=[list(edge) for edge in net.edges], rounds=game.rounds, problem=task.name)
    answers = await game.play(speaker)
    score = task.score(net, answers)
    outcome = "solved" if score.solved else "unanswered" if None in answers.values() else "unsolved"
    told = {"problem": task.name, "outcome": outcome, "soft": score.soft, "solved": score.solved, "answers": answers}
    told |= {"nodes": len(net), "rounds": game.rounds, "malformed": dict(game.malformed)}
    run.note("outcome", **told | ({"outcome": "stopped"} if voices.over else {}))
    return None if voices.over and None in answers.values() else json.dumps(told, ensure_ascii=False)
