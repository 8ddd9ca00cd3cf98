"""The valid-consensus game with honest and Byzantine workers (arXiv 2603.01213): propose, broadcast, vote, repeat.

The rules are in ``kvorum.tasks.consensus``, the prompts in ``consensus_table.py``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.speech import Speaker, mixed, scripted
from kvorum.harness.voices import Voices
from kvorum.programs.consensus.table import Table
from kvorum.runs.run import Run, program
from kvorum.tasks.consensus import LIES, RULES, Verdict, deal


@program("consensus", "propose, broadcast, vote: agreement among honest and Byzantine workers", workers=4)
async def consensus(
    run: Run,
    *,
    byzantine: int = 0,
    rounds: int = 50,
    low: int = 0,
    high: int = 50,
    game_seed: int = 0,
    warned: bool = True,
    quorum: str = "all",
    channel: str = "text",
    proposal_tokens: int = 300,
    vote_tokens: int = 200,
    proposal_temperature: float = 0.5,
    vote_temperature: float = 0.3,
    reason_chars: int = 200,
    retries: int = 3,
    player: str = "model",
    liar: str = "model",
) -> str | None:
    """All propose a value, see all proposals and vote whether to stop, until enough of them do.

    The answer is JSON: ``outcome`` ("valid", "invalid", "none"), its ``reason``, ``value``, ``rounds`` and more.

    The task's text is a further instruction to everyone ("agree" adds none). A run whose budget ends first has no
    answer.

    Args:
        byzantine: how many workers are. rounds: the most. low, high: the values. game_seed: who is Byzantine, and the
            initial values. warned: honest workers are told that there may be Byzantine ones.
        quorum: the stop votes that end the game are 66 % of "all" workers, or of the "honest" ones, whose votes alone
            count then. channel: public reasons as "text" or as "cache".
        proposal_tokens, vote_tokens, proposal_temperature, vote_temperature: of a call. reason_chars: how much of a
            public reason the others see. retries: how often a worker is asked again.
        player, liar: who plays the honest and the Byzantine workers: the "model", or for the honest the scripts
            "median" and "trimmed", for the others "low", "high" and "random".
    """
    for name, value, known in (("player", player, [*RULES, "model"]), ("liar", liar, [*LIES, "model"])):
        if value not in known:
            raise UnknownName(f"There is no {name} {value!r}; there are: {', '.join(known)}.")
    if min(rounds, proposal_tokens, vote_tokens, reason_chars) < 1 or retries < 0:
        raise BadRequest("rounds, proposal_tokens, vote_tokens and reason_chars must be at least 1, retries 0.")
    game = deal([worker.name for worker in run.workers], byzantine, seed=game_seed, low=low, high=high, quorum=quorum)
    voices = Voices(run, channel)
    calls = ((proposal_tokens, proposal_temperature), (vote_tokens, vote_temperature))
    prompt = run.task.prompt.strip()
    table = Table(game, warned, "" if prompt.lower() == "agree" else prompt, calls, reason_chars, retries)
    table.link = run.injected.link
    honest: Speaker = voices if player == "model" else scripted(table.rule(player))
    liars: Speaker = voices if liar == "model" else scripted(table.lie(liar, game_seed))
    speaker = mixed(dict.fromkeys(game.byzantine, liars), honest)
    run.note("game", byzantine=sorted(game.byzantine), initial=dict(game.initial), needed=game.needed())
    verdict = Verdict("none")
    told: dict[str, Any] = {}
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
