"""Load: 64 streaming chats and 8 teams of 4 at once, beside bare ticks of as many rows; first tokens.

In the load of agents half of all requests are chats that are held to a schema or must call one of two tools.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path

from server import MODEL, Moment, Server, report

from clients import PROMPT, Stream, agent, chat, stream, team
from kvorum import Block, Engine, Row, Sampling, View
from kvorum.sampling.reference import pick
from kvorum.sampling.sampling import Draw

CHATS, TEAMS, WORKERS = 64, 8, 4
TEAM_PROMPT = 291
"""Tokens of the prompt of these teams, as their traces tell."""


def load(folder: Path, agents: int = 0, tokens: int = 64, rounds: int = 4) -> None:
    """The whole load, with the same rows as bare ticks before and behind it, again and again; a burst of equal chats.

    ``agents`` of the chats are held to schemas or call tools.

    A machine that is shared with others may be a third slower a minute later: so each load is compared with the ticks
    right before and right behind it.
    """
    shares, rates, bares, done = [], [], [], 0
    with Server(folder / "store") as server:
        waits = [one.first for one in asyncio.run(_burst(server))]
        waits = [one.first for one in asyncio.run(_burst(server))]  # the first one was to warm up
        late = [1000 * wait for n in range(rounds) for wait in asyncio.run(_newcomers(server, tokens, 500 * (n + 1)))]
        bare = Bare(CHATS + TEAMS * WORKERS - 2, tokens // 2)
        for n in range(rounds):
            before = bare.rate()
            begin, end, ended = asyncio.run(_both(server, agents, tokens, 1000 * (n + 1)))
            bares.append((before + bare.rate()) / 2)
            done += ended
            wall, ticks = end.time - begin.time, end.ticks - begin.ticks
            rates.append((end.tokens - begin.tokens) / wall)
            shares.append(rates[-1] / bares[-1])
            rows, inside = (end.rows - begin.rows) / ticks, (end.seconds - begin.seconds) / wall
            print(
                f"     {rates[-1]:.0f} of {bares[-1]:.0f} tokens/s, {rows:.1f} rows, {inside:.2f} in ticks", flush=True
            )
    all_done = rounds * (CHATS + TEAMS)
    report(
        f"{CHATS} chats, {agents} of them in forms, and {TEAMS} teams of {WORKERS}, {rounds} times: complete",
        f"{done} of {all_done}", "all", done == all_done,
    )  # fmt: skip
    report("tokens/s over HTTP while all of them stream", f"{statistics.mean(rates):.0f}")
    report("tokens/s of bare ticks of as many rows, as in `kvorum bench`", f"{statistics.mean(bares):.0f}")
    share = statistics.mean(shares)
    report("share of that", f"{share:.2f}", ">= 0.95", share >= 0.95)
    report(
        f"first token of {len(late)} newcomers under {CHATS} streams: median, longest",
        f"{statistics.median(late):.0f}, {max(late):.0f} ms",
    )
    ratio = max(waits) / statistics.median(waits)
    report("burst of 64 equals: longest first token over median", f"{ratio:.2f}", "<= 4", ratio <= 4)


async def _burst(server: Server) -> list[Stream]:
    sent = [await chat(server, 100 + n, 16) for n in range(CHATS)]
    await asyncio.gather(*(one.done for one in sent))
    return sent


async def _newcomers(server: Server, tokens: int, first: int) -> list[float]:
    """Seconds to the first token of chats of their own prompts, one after the other while the others all stream."""
    choose = random.Random(first)
    streams = [await chat(server, first + n, tokens) for n in range(CHATS)]
    await asyncio.gather(*(one.begun for one in streams))
    waits = []
    while not any(one.done.done() for one in streams):
        ids = [choose.randrange(1000, 40000) for _ in range(60)]
        body = {"model": MODEL, "prompt": ids, "max_tokens": 2, "temperature": 0.8, "seed": first, "stream": True}
        newcomer = await stream(server, "POST", "/v1/completions", body, '"text":"')
        await newcomer.begun
        if not any(one.done.done() for one in streams):  # else it was not among all of them
            waits.append(newcomer.first)
        await newcomer.done
    await asyncio.gather(*(one.done for one in streams))
    return waits


async def _both(server: Server, agents: int, tokens: int, first: int) -> tuple[Moment, Moment, int]:
    """From when everyone streams to when four have ended; and how many completed. Chats are numbered from ``first``."""
    ask = [agent] * agents + [chat] * (CHATS - agents)
    chats = [await ask[n](server, first + n, tokens) for n in range(CHATS)]
    teams = await asyncio.gather(*(team(server, first + n, tokens + 16) for n in range(TEAMS)))
    everyone = [*chats, *(events for _, events in teams)]
    await asyncio.gather(*(one.begun for one in everyone))
    begin = await asyncio.to_thread(server.now)
    while sum(one.done.done() for one in everyone) < 4:
        await asyncio.wait([one.done for one in everyone if not one.done.done()], return_when=asyncio.FIRST_COMPLETED)
    end = await asyncio.to_thread(server.now)
    await asyncio.gather(*(one.done for one in everyone))
    return begin, end, sum(one.ok for one in chats) + sum(server.status(run) == "finished" for run, _ in teams)


class Bare:
    """Ticks without anything around them: so many rows, each with ``length`` tokens of its own.

    Those of the teams stand behind their team's prompt, the others behind the beginning that all chats have in common.
    """

    def __init__(self, rows: int, length: int) -> None:
        self._engine, self._choose = Engine.load(MODEL), random.Random(0)
        self._views = list[View]()
        for _ in range(TEAMS):
            history = self._filled(TEAM_PROMPT)
            own = [self._filled(length, history) for _ in range(WORKERS)]
            self._views += [View(history, *(other for other in own if other is not mine), mine) for mine in own]
        shared = self._filled(len(PROMPT.split()) + 16)
        self._views += [View(shared, self._filled(length, shared)) for _ in range(rows - len(self._views))]

    def _filled(self, count: int, *before: Block) -> Block:
        block = self._engine.block()
        ids = [self._choose.randrange(1000, 40000) for _ in range(count)]
        self._engine.forward([Row(View(*before, block), ids=ids)])
        return block

    def rate(self, times: int = 24) -> float:
        """Tokens/s, from the mean of so many ticks behind three that warm up."""
        spent = []
        for _ in range(times + 3):
            begun = time.perf_counter()
            self._engine.forward([Row(view, ids=[self._choose.randrange(1000, 40000)]) for view in self._views])
            spent.append(time.perf_counter() - begun)
        for view in self._views:
            assert view.own is not None
            view.own.truncate(len(view.own) - times - 3)
        return len(self._views) / statistics.mean(spent[3:])


def load_agents(folder: Path) -> None:
    """The load with half of all requests under schemas or tools."""
    load(folder, agents=(CHATS + TEAMS) // 2)


def ttft(folder: Path, times: int = 20) -> None:
    """Time to the first token over HTTP against the engine's own, alone; prompts of 60 tokens, all different."""
    choose = random.Random(0)
    prompts = [[choose.randrange(1000, 40000) for _ in range(60)] for _ in range(times + 1)]
    there = []
    with Server(folder / "store") as server:
        for ids in prompts:
            body = {"model": MODEL, "prompt": ids, "max_tokens": 2, "stream": True}
            begun = time.monotonic()
            with server.http.stream("POST", "/v1/completions", json=body) as reply:
                lines = reply.iter_lines()
                next(lines)
                there.append(time.monotonic() - begun)
                list(lines)  # all of it: what a client that goes away leaves behind would fall into the next one's time
    engine, own = Engine.load(MODEL), []
    for n, ids in enumerate(prompts):
        begun = time.monotonic()
        logits = engine.forward([Row(View(engine.block()), ids=ids)]).logits[0]
        pick(logits, Draw(Sampling(temperature=1.0), seed=n, stream=0, step=0))
        own.append(time.monotonic() - begun)
    mine = 1000 * statistics.median(own[1:])
    extra = 1000 * statistics.median(there[1:]) - mine
    report("first token over HTTP beyond the engine's own", f"{extra:.1f} of {mine:.0f} ms", "<= 30 ms", extra <= 30)
