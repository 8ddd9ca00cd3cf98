"""Load: 64 streaming chats and 8 teams of 4 at once, beside bare ticks of as many rows; first tokens."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path

from clients import PROMPT, Stream, chat, team
from server import MODEL, Moment, Server, report

from kvorum import Block, Engine, Row, Sampling, View
from kvorum.engine.sampling import pick

CHATS, TEAMS, WORKERS = 64, 8, 4


def load(folder: Path, tokens: int = 64) -> None:
    """The whole load, then a burst of equal chats, then the same rows as bare ticks."""
    with Server(folder / "store") as server:
        asyncio.run(_burst(server))  # warm
        begin, end, done, lengths = asyncio.run(_both(server, tokens))
        waits = [one.first for one in asyncio.run(_burst(server))]
    wall, rows = end.time - begin.time, (end.rows - begin.rows) / (end.ticks - begin.ticks)
    rate = (end.tokens - begin.tokens) / wall
    bare = _bare(round(rows), lengths, tokens // 2)
    report(f"{CHATS} chats and {TEAMS} teams of {WORKERS}: complete", f"{done} of {CHATS + TEAMS}", "all", done == 72)
    report("rows of a tick while all of them stream", f"{rows:.1f}")
    report("tokens/s over HTTP meanwhile", f"{rate:.0f}")
    report("tokens/s of bare ticks of as many rows, as in `kvorum bench`", f"{bare:.0f}")
    report("share of that", f"{rate / bare:.2f}", ">= 0.85", rate >= 0.85 * bare)
    report("share of the wall time spent in ticks", f"{(end.seconds - begin.seconds) / wall:.2f}")
    ratio = max(waits) / statistics.median(waits)
    report("burst of 64 equals: longest first token over median", f"{ratio:.2f}", "<= 4", ratio <= 4)


async def _burst(server: Server) -> list[Stream]:
    sent = [await chat(server, 100 + n, 16) for n in range(CHATS)]
    await asyncio.gather(*(one.done for one in sent))
    return sent


async def _both(server: Server, tokens: int) -> tuple[Moment, Moment, int, int]:
    """From when everyone streams to when four have ended; how many completed; the tokens of a team's prompt."""
    chats = [await chat(server, n, tokens) for n in range(CHATS)]
    teams = await asyncio.gather(*(team(server, n, tokens + 16) for n in range(TEAMS)))
    everyone = [*chats, *(events for _, events in teams)]
    await asyncio.gather(*(one.begun for one in everyone))
    begin = await asyncio.to_thread(server.now)
    while sum(one.done.done() for one in everyone) < 4:
        await asyncio.wait([one.done for one in everyone if not one.done.done()], return_when=asyncio.FIRST_COMPLETED)
    end = await asyncio.to_thread(server.now)
    await asyncio.gather(*(one.done for one in everyone))
    done = sum(one.ok for one in chats) + sum(server.status(run) == "finished" for run, _ in teams)
    first = next(event for event in server.trace(teams[0][0]) if event["event"] == "forward")
    return begin, end, done, int(first["tokens"])


def _bare(rows: int, prompt: int, length: int, times: int = 16) -> float:
    """Tokens/s of ticks without anything around them: so many rows, each with ``length`` tokens of its own.

    Those of the teams stand behind their team's prompt, the others behind the beginning that all chats have in common.
    """
    engine = Engine.load(MODEL)
    choose = random.Random(0)

    def filled(count: int, *before: Block) -> Block:
        block = engine.block()
        ids = [choose.randrange(1000, 40000) for _ in range(count)]
        engine.forward([Row(View(*before, block), ids=ids)])
        return block

    views = []
    for _ in range(TEAMS):
        history = filled(prompt)
        own = [filled(length, history) for _ in range(WORKERS)]
        views += [View(history, *(other for other in own if other is not mine), mine) for mine in own]
    shared = filled(len(PROMPT.split()) + 16)
    views += [View(shared, filled(length, shared)) for _ in range(rows - len(views))]
    spent = []
    for _ in range(times + 4):
        begun = time.perf_counter()
        engine.forward([Row(view, ids=[choose.randrange(1000, 40000)]) for view in views])
        spent.append(time.perf_counter() - begun)
    return len(views) / statistics.mean(spent[4:])


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
                next(reply.iter_lines())
                there.append(time.monotonic() - begun)
    engine, own = Engine.load(MODEL), []
    for n, ids in enumerate(prompts):
        begun = time.monotonic()
        logits = engine.forward([Row(View(engine.block()), ids=ids)]).logits[0]
        pick(logits, Sampling(temperature=1.0), seed=n, stream=0, step=0)
        own.append(time.monotonic() - begun)
    mine = 1000 * statistics.median(own[1:])
    extra = 1000 * statistics.median(there[1:]) - mine
    report("first token over HTTP beyond the engine's own", f"{extra:.1f} of {mine:.0f} ms", "<= 30 ms", extra <= 30)
