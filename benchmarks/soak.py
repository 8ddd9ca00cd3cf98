"""`make soak`: `kvorum serve` under load, faults and bad input, with the figures of docs/reliability.md.

Each part starts a real server process with smollm2-135m and prints one line for each bound, the figure as measured.

    python benchmarks/soak.py [load ttft gone fuzz kills] [--fuzz 10000] [--kills 50]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

MODEL = "smollm2-135m"
PROMPT = "Tell me, in plain words and at some length, how a river finds its way to the sea, part {}."


class Server:
    """`kvorum serve` as a process."""

    def __init__(self, store: Path, *options: str) -> None:
        words = [sys.executable, "-m", "kvorum.cli", "serve", "--model", MODEL, "--port", "0", "--store", str(store)]
        self.log = (store.parent / "log.txt").open("a")
        self.process = subprocess.Popen([*words, *options], stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1].rstrip("/")
        self.http = httpx.Client(base_url=self.url, timeout=120)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.http.close()
        self.process.send_signal(how)
        self.process.wait(30)
        self.log.close()

    def pages(self) -> dict[str, int]:
        return dict(self.http.get("/health").json()["pages"])

    def resident(self) -> float:
        """MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    def tokens(self) -> tuple[float, float]:
        """Tokens so far, and seconds in ticks."""
        text = self.http.get("/metrics").text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return float(lines['kvorum_tokens_total{kind="all"}']), float(lines["kvorum_tick_seconds_sum"])


def report(what: str, figure: str, bound: str, held: bool) -> None:
    print(f"{'ok  ' if held else 'MISS'} {what:58} {figure:>22}   {bound}", flush=True)


def tokens_of(client: httpx.Client, run: str) -> list[list[int]]:
    lines = [json.loads(line) for line in client.get(f"/v1/runs/{run}/trace").text.splitlines()]
    return [[row["token"] for row in event["rows"]] for event in lines if event["event"] == "tick"]


def wait(client: httpx.Client, run: str, seconds: float = 300) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while (shown := client.get(f"/v1/runs/{run}").json())["status"] in ("queued", "running", "paused"):
        assert time.monotonic() < end, shown
        time.sleep(0.05)
    return dict(shown)


# -- load ------------------------------------------------------------------------------------------------------------


async def chat(client: httpx.AsyncClient, n: int, tokens: int, leave: int | None = None) -> dict[str, float]:
    """One streamed chat: when its first and last token came, and how many there were."""
    body = {
        "model": MODEL, "stream": True, "max_tokens": tokens, "temperature": 0.8, "seed": n,
        "messages": [{"role": "user", "content": PROMPT.format(n)}],
    }  # fmt: skip
    begun, first, count = time.monotonic(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200, await reply.aread()
        async for line in reply.aiter_lines():
            if line.startswith("data: {") and '"content":"' in line and '"role"' not in line:
                first = first or time.monotonic()
                count += 1
                if leave is not None and count >= leave:
                    break
    return {"first": first - begun, "whole": time.monotonic() - begun, "tokens": count}


async def team(client: httpx.AsyncClient, n: int, ticks: int) -> dict[str, Any]:
    body = {"problem": "What is 17 * 23?", "model": f"{MODEL}:hogwild-4", "budget": {"ticks": ticks}, "seed": n}
    made = (await client.post("/v1/runs", json=body)).json()
    async with client.stream("GET", f"/v1/runs/{made['id']}/events") as reply:
        async for _ in reply.aiter_lines():
            pass
    return dict((await client.get(f"/v1/runs/{made['id']}")).json())


def load(folder: Path, tokens: int = 48) -> None:
    """64 streaming chats and 8 teams of 4 at once, then a burst of 64 equal chats."""
    server = Server(folder / "store")

    async def both() -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
            chats = asyncio.gather(*(chat(client, n, tokens) for n in range(64)))
            teams = asyncio.gather(*(team(client, n, tokens) for n in range(8)))
            return await chats, await teams

    async def burst() -> list[dict[str, float]]:
        async with httpx.AsyncClient(
            base_url=server.url, timeout=300, limits=httpx.Limits(max_connections=200)
        ) as client:
            return await asyncio.gather(*(chat(client, 100 + n, 16) for n in range(64)))

    asyncio.run(burst())  # warm
    before, begun = server.tokens(), time.monotonic()
    chats, teams = asyncio.run(both())
    after, wall = server.tokens(), time.monotonic() - begun
    done = sum(c["tokens"] > 0 for c in chats) + sum(t["status"] == "finished" for t in teams)
    report("64 chats and 8 teams of 4: complete", f"{done} of 72", "72", done == 72)
    rate = (after[0] - before[0]) / wall
    share = (after[1] - before[1]) / wall
    report("tokens/s over HTTP, prompts included", f"{rate:.0f}", "", True)
    report("share of the wall time spent in ticks", f"{share:.2f}", ">= 0.85", share >= 0.85)
    waits = [c["first"] for c in asyncio.run(burst())]
    ratio = max(waits) / statistics.median(waits)
    report("burst of 64 equals: longest first token over median", f"{ratio:.2f}", "<= 4", ratio <= 4)
    server.end()


def ttft(folder: Path, times: int = 20) -> None:
    """Time to the first token over HTTP against the engine's own, alone; prompts of 60 tokens, all different."""
    from kvorum import Engine, Row, Sampling, View
    from kvorum.engine.sampling import pick

    choose = random.Random(0)
    prompts = [[choose.randrange(1000, 40000) for _ in range(60)] for _ in range(times + 1)]
    server, there = Server(folder / "store"), []
    for ids in prompts:
        body = {"model": MODEL, "prompt": ids, "max_tokens": 2, "stream": True}
        begun = time.monotonic()
        with server.http.stream("POST", "/v1/completions", json=body) as reply:
            next(reply.iter_lines())
            there.append(time.monotonic() - begun)
    server.end()
    engine, own = Engine.load(MODEL), []
    for n, ids in enumerate(prompts):
        begun = time.monotonic()
        logits = engine.forward([Row(View(engine.block()), ids=ids)]).logits[0]
        pick(logits, Sampling(temperature=1.0), seed=n, stream=0, step=0)
        own.append(time.monotonic() - begun)
    mine = 1000 * statistics.median(own[1:])
    extra = 1000 * statistics.median(there[1:]) - mine
    report("first token over HTTP beyond the engine's own", f"{extra:.1f} of {mine:.0f} ms", "<= 30 ms", extra <= 30)


def gone(folder: Path) -> None:
    """Half of 64 streaming clients go away."""
    server = Server(folder / "store")

    async def half() -> tuple[float, int]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
            work = [asyncio.ensure_future(chat(client, n, 150)) for n in range(64)]
            while server.pages()["total"] - server.pages()["free"] < 64:
                await asyncio.sleep(0.2)
            await asyncio.sleep(4)
            for task in work[::2]:
                task.cancel()
            left = time.monotonic()
            await asyncio.gather(*work[::2], return_exceptions=True)
            free = await asyncio.to_thread(freed, left)
            rest = await asyncio.gather(*work[1::2])
            return free, sum(r["tokens"] > 0 for r in rest)

    def freed(left: float) -> float:
        while True:
            text = server.http.get("/metrics").text
            running = next(line for line in text.splitlines() if line.startswith("kvorum_requests_running "))
            if float(running.split()[1]) <= 32:
                return time.monotonic() - left
            time.sleep(0.01)

    seconds, rest = asyncio.run(half())
    report("32 of 64 clients gone: their places and pages free after", f"{seconds:.2f} s", "<= 1 s", seconds <= 1)
    report("the others complete", f"{rest} of 32", "32", rest == 32)
    time.sleep(1)
    pages = server.pages()
    kept = pages["total"] - pages["free"] - pages["prefixes"]
    report("pages not accounted for afterwards", str(kept), "0", kept == 0)
    server.end()


# -- faults ----------------------------------------------------------------------------------------------------------


def fuzz(folder: Path, count: int) -> None:
    """Requests made at random after the server's own description."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    server = Server(folder / "store", "--max-ticks", "24")
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [o.ok() for o in schema.get_all_operations() if not o.ok().path.endswith("/events")]
    statuses: dict[int, int] = {}
    bad: list[str] = []
    slowest, sizes = 0.0, [server.resident()]
    rounds = 4
    each = max(1, count // len(operations) // rounds)
    for number in range(rounds):
        for operation in operations:

            def once(case: schemathesis.Case) -> None:
                nonlocal slowest
                begun = time.monotonic()
                reply = case.call(timeout=120)
                slowest = max(slowest, time.monotonic() - begun)
                statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
                if reply.status_code >= 500 and reply.status_code != 503:
                    bad.append(f"{case.method} {case.formatted_path} {reply.status_code} {reply.text[:300]}")

            limits = settings(
                max_examples=each, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            limits(given(case=operation.as_strategy())(once))()
        clean(server)
        sizes.append(server.resident())
        print(f"     round {number + 1}: {sum(statuses.values())} requests, {sizes[-1]:.0f} MiB", flush=True)
    report("fuzzed requests", str(sum(statuses.values())), f"{count}", sum(statuses.values()) >= 0.9 * count)
    report("replies of 500 and more, but deliberate 503", str(len(bad)), "0", not bad)
    print("     statuses:", dict(sorted(statuses.items())), *bad[:5], sep="\n     ")
    report("longest reply", f"{slowest:.1f} s", "no hang", slowest < 60)
    growth = sizes[-1] / sizes[-2] - 1
    report("resident size, last round over the one before", f"{100 * growth:+.1f} %", "<= 5 %", growth <= 0.05)
    pages = server.pages()
    kept = pages["total"] - pages["free"] - pages["prefixes"]
    report("pages not accounted for afterwards", str(kept), "0", kept == 0)
    server.end()


def clean(server: Server) -> None:
    """Delete what the fuzz has made."""
    while runs := server.http.get("/v1/runs", params={"limit": 200}).json()["data"]:
        for run in runs:
            server.http.delete(f"/v1/runs/{run['id']}")
    for block in server.http.get("/v1/blocks").json()["data"]:
        server.http.delete(f"/v1/blocks/{block['id']}")


def kills(folder: Path, count: int) -> None:
    """SIGKILL at random moments while four runs go on under the load of chats."""
    choose = random.Random(0)
    server = Server(folder / "store")
    bodies = [
        {"problem": "What is 17 * 23?", "model": f"{MODEL}:{program}", "budget": {"ticks": 96}, "seed": seed}
        for seed, program in enumerate(("hogwild-3", "vote-2", "solo-1", "roleplay-2"))
    ]

    def undisturbed(body: dict[str, Any]) -> list[list[int]]:
        run = server.http.post("/v1/runs", json=body).json()["id"]
        wait(server.http, run)
        return tokens_of(server.http, run)

    expected = [undisturbed(body) for body in bodies]
    done = equal = killed = 0
    lost = 0
    while killed < count:
        runs = [server.http.post("/v1/runs", json=body).json()["id"] for body in bodies]
        finished: set[str] = set()
        while len(finished) < len(runs) and killed < count:
            load_of = subprocess.Popen([sys.executable, __file__, "--chats", server.url], stderr=subprocess.DEVNULL)
            time.sleep(choose.uniform(0.1, 4.0))
            finished |= {r for r in runs if server.http.get(f"/v1/runs/{r}").json()["status"] == "finished"}
            server.end()
            load_of.kill()
            load_of.wait()
            killed += 1
            server = Server(folder / "store")
            lost += sum(server.http.get(f"/v1/runs/{r}").json()["status"] != "finished" for r in finished)
        for run, tokens in zip(runs, expected, strict=True):
            shown = wait(server.http, run)
            done += 1
            equal += shown["status"] == "finished" and tokens_of(server.http, run) == tokens
    report("kills with SIGKILL under load", str(killed), str(count), killed >= count)
    report("runs that end with the tokens of an undisturbed one", f"{equal} of {done}", "all", equal == done)
    report("finished runs lost", str(lost), "0", lost == 0)
    server.end()


def chats(url: str) -> None:
    """Load for the kills, until it is ended."""

    async def forever(n: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while True:
                n += 4
                await chat(client, n, 24)

    async def some() -> None:
        await asyncio.gather(*(forever(n) for n in range(4)))

    asyncio.run(some())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="load ttft gone fuzz kills (default: all)")
    parser.add_argument("--fuzz", type=int, default=10000, metavar="REQUESTS")
    parser.add_argument("--kills", type=int, default=50, metavar="N")
    parser.add_argument("--chats", metavar="URL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.chats:
        chats(args.chats)
        return
    parts: dict[str, Callable[[Path], None]] = {
        "load": load, "ttft": ttft, "gone": gone, "fuzz": lambda at: fuzz(at, args.fuzz),
        "kills": lambda at: kills(at, args.kills),
    }  # fmt: skip
    for name in args.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            print(f"-- {name}", flush=True)
            parts[name](Path(folder))


if __name__ == "__main__":
    main()
