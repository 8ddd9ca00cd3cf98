"""The valid-consensus game with honest and Byzantine workers (arXiv 2603.01213): propose, broadcast, vote, repeat.

The rules are in ``kvorum.tasks.consensus``, the prompts in ``table.py``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Literal

from kvorum.harness.model_speaker import Channel, ModelSpeaker
from kvorum.harness.protocols.protocol import Protocol
from kvorum.harness.speaker import mixed, scripted
from kvorum.jsontypes import Json
from kvorum.programs.consensus.voting_table import VotingTable
from kvorum.runs.annotations import Help, NonNegativeFloat, NonNegativeInt, PositiveInt
from kvorum.runs.parameters import Value
from kvorum.runs.program import program
from kvorum.runs.run import Run
from kvorum.tasks.consensus import LIES, QUORUMS, RULES, Verdict, deal


def can_be_dealt(workers: int, *, byzantine: int, low: int, high: int, **others: Value) -> None:
    """Raises BadRequest where no worker would be honest, or no value could be proposed."""
    deal([str(at) for at in range(workers)], byzantine, seed=0, low=low, high=high)


@program(
    "consensus",
    "propose, broadcast, vote: agreement among honest and Byzantine workers",
    workers=4,
    exchange="board",
    own_tasks=True,
    channels={"text": {"channel": "text"}, "cache": {"channel": "cache"}},
    real="cache",
    together=can_be_dealt,
)
async def consensus(
    run: Run,
    *,
    byzantine: NonNegativeInt = 0,
    rounds: PositiveInt = 50,
    low: int = 0,
    high: int = 50,
    game_seed: int = 0,
    warned: bool = True,
    memory: Literal["paper", "released"] = "paper",
    quorum: Annotated[str, Help(choices=QUORUMS)] = "all",
    channel: Channel = "text",
    proposal_tokens: PositiveInt = 300,
    vote_tokens: PositiveInt = 200,
    proposal_temperature: NonNegativeFloat = 0.5,
    vote_temperature: NonNegativeFloat = 0.3,
    reason_chars: PositiveInt = 200,
    retries: NonNegativeInt = 3,
    player: Annotated[str, Help(choices=("model", *RULES))] = "model",
    liar: Annotated[str, Help(choices=("model", *LIES))] = "model",
) -> str | None:
    """All propose a value, see all proposals and vote whether to stop, until enough of them do.

    The answer is JSON: ``outcome`` ("valid", "invalid", "none"), its ``reason``, ``value``, ``rounds`` and more.

    The task's text is a further instruction to everyone ("agree" adds none). A run whose budget ends first has no
    answer.

    Args:
        byzantine: How many workers are Byzantine.
        rounds: The most rounds.
        low: The least value that can be proposed.
        high: The largest value that can be proposed.
        game_seed: Decides who is Byzantine, and the initial values.
        warned: Honest workers are told that there may be Byzantine ones.
        memory: What a worker is shown of the past: as in the paper, the last round and its last note; as in the
            released code, three rounds and five notes, and an abstaining worker's last value stands again.
        quorum: Two thirds of all workers must vote to stop, or of the honest ones, whose votes alone count.
        proposal_tokens: The most tokens of a proposal.
        vote_tokens: The most tokens of a vote.
        proposal_temperature: The temperature of proposals.
        vote_temperature: The temperature of votes.
        reason_chars: How many characters of a public reason the others see.
        retries: How often a worker is asked again whose words could not be read.
        player: Who plays the honest workers: the model, or a script by this rule.
        liar: Who plays the Byzantine workers: the model, or a script of such lies.
    """
    game = deal([worker.name for worker in run.workers], byzantine, seed=game_seed, low=low, high=high, quorum=quorum)
    model = ModelSpeaker(run, channel)
    calls = ((proposal_tokens, proposal_temperature), (vote_tokens, vote_temperature))
    prompt = run.task.prompt.strip()
    extra = "" if prompt.lower() == "agree" else prompt
    game.repeats = memory == "released"
    table = VotingTable(
        game, warned, extra, calls, reason_chars, retries, released=memory == "released", link=run.injections.link
    )
    honest = model if player == "model" else scripted(table.rule(player))
    liars = model if liar == "model" else scripted(table.lie(liar, game_seed))
    speaker = mixed(dict.fromkeys(game.byzantine, liars), honest)
    dealt: dict[str, Json] = {
        "initial": dict(game.initial),
        "byzantine": sorted(game.byzantine),
        "needed": table.needed,
    }
    run.note("game", **dealt)
    stops: dict[str, bool] = {}

    async def play_round() -> str:
        votes = await table.round(speaker)
        if model.over:
            return "stopped"
        reasons = {name: quote.text for name, quote in table.reasons.items()}
        changed = {"changed": table.changed} if table.changed else {}
        run.note("round", n=table.number, board=game.board, votes=votes, reasons=reasons, **changed)
        stops.update({f"{kind}_quorum": table.stops(votes, kind) for kind in QUORUMS})
        return "agreed" if table.stops(votes) else "on"

    played = await Protocol({"round": {"on": "round"}}, "round", rounds).play({"round": play_round})
    verdict = Verdict("none") if played.end == "stopped" else game.verdict(played.end == "agreed")
    end: dict[str, Json] = asdict(verdict) | {"rounds": table.number, "held": game.held}
    result: dict[str, Json] = {**stops, **end, **dealt, "malformed": dict(table.malformed)}
    run.note("outcome", **result | ({"outcome": "stopped"} if model.over else {}))
    return None if model.over else json.dumps(result, ensure_ascii=False)
