"""The valid-consensus game with honest and Byzantine workers (arXiv 2603.01213): propose, broadcast, vote, repeat.

The rules are in ``kvorum.tasks.consensus``, the prompts in ``table.py``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from kvorum.harness.speech import Speaker, mixed, scripted
from kvorum.harness.voices import Channel, Voices
from kvorum.jsontypes import Json
from kvorum.programs.consensus.table import Table
from kvorum.runs.annotations import Help
from kvorum.runs.program import program
from kvorum.runs.run import Run
from kvorum.tasks.consensus import LIES, QUORUMS, RULES, Verdict, deal


@program(
    "consensus",
    "propose, broadcast, vote: agreement among honest and Byzantine workers",
    workers=4,
    exchange="board",
    own_tasks=True,
    channels={"text": {"channel": "text"}, "cache": {"channel": "cache"}},
    real="cache",
)
async def consensus(
    run: Run,
    *,
    byzantine: Annotated[int, Help("How many workers are Byzantine.", low=0)] = 0,
    rounds: Annotated[int, Help("The most rounds.", low=1)] = 50,
    low: Annotated[int, Help("The least value that can be proposed.")] = 0,
    high: Annotated[int, Help("The largest value that can be proposed.")] = 50,
    game_seed: Annotated[int, Help("Decides who is Byzantine, and the initial values.")] = 0,
    warned: Annotated[bool, Help("Honest workers are told that there may be Byzantine ones.")] = True,
    quorum: Annotated[
        str,
        Help("66 % of all workers must vote to stop, or of the honest ones, whose votes alone count.", choices=QUORUMS),
    ] = "all",
    channel: Channel = "text",
    proposal_tokens: Annotated[int, Help("The most tokens of a proposal.", low=1)] = 300,
    vote_tokens: Annotated[int, Help("The most tokens of a vote.", low=1)] = 200,
    proposal_temperature: Annotated[float, Help("The temperature of proposals.", low=0)] = 0.5,
    vote_temperature: Annotated[float, Help("The temperature of votes.", low=0)] = 0.3,
    reason_chars: Annotated[int, Help("How many characters of a public reason the others see.", low=1)] = 200,
    retries: Annotated[int, Help("How often a worker is asked again whose words could not be read.", low=0)] = 3,
    player: Annotated[
        str, Help("Who plays the honest workers: the model, or a script by this rule.", choices=("model", *RULES))
    ] = "model",
    liar: Annotated[
        str, Help("Who plays the Byzantine workers: the model, or a script of such lies.", choices=("model", *LIES))
    ] = "model",
) -> str | None:
    """All propose a value, see all proposals and vote whether to stop, until enough of them do.

    The answer is JSON: ``outcome`` ("valid", "invalid", "none"), its ``reason``, ``value``, ``rounds`` and more.

    The task's text is a further instruction to everyone ("agree" adds none). A run whose budget ends first has no
    answer.
    """
    game = deal([worker.name for worker in run.workers], byzantine, seed=game_seed, low=low, high=high, quorum=quorum)
    voices = Voices(run, channel)
    calls = ((proposal_tokens, proposal_temperature), (vote_tokens, vote_temperature))
    prompt = run.task.prompt.strip()
    table = Table(game, warned, "" if prompt.lower() == "agree" else prompt, calls, reason_chars, retries)
    table.link = run.injections.link
    honest: Speaker = voices if player == "model" else scripted(table.rule(player))
    liars: Speaker = voices if liar == "model" else scripted(table.lie(liar, game_seed))
    speaker = mixed(dict.fromkeys(game.byzantine, liars), honest)
    run.note("game", byzantine=sorted(game.byzantine), initial=dict(game.initial), needed=game.needed())
    verdict = Verdict("none")
    told: dict[str, Json] = {}
    for number in range(1, rounds + 1):
        votes = await table.round(speaker, number)
        if voices.over:
            break
        reasons = {name: quote.text for name, quote in table.reasons.items()}
        changed = {"changed": table.changed} if table.changed else {}
        run.note("round", n=number, board=game.board, votes=votes, reasons=reasons, **changed)
        told = {f"{kind}_quorum": game.stops(votes, kind) for kind in ("all", "honest")}
        if game.stops(votes) or number == rounds:
            verdict = game.verdict(game.stops(votes))
            break
    told |= asdict(verdict) | {"rounds": table.number, "held": game.held, "initial": dict(game.initial)}
    told |= {"byzantine": sorted(game.byzantine), "needed": game.needed(), "malformed": dict(table.malformed)}
    run.note("outcome", **told | ({"outcome": "stopped"} if voices.over else {}))
    return None if voices.over else json.dumps(told, ensure_ascii=False)
