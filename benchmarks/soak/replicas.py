"""Two replicas under Ray Serve with the load of 64 streaming chats and 8 teams of 4, one of them killed in the middle.

The load is sent twice: undisturbed, which tells what every reply and run is; then with the kill. Clients do what a
client does: a chat that was broken off is sent again, events of a run go on behind the last one that was read.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kept_replies import Kept
from load import CHATS, TEAMS
from ray_replicas import SESSIONS, Replicas, processes, replicas
from server import MODEL, report

from clients import CHAT, SAID, chat_body, send, team_body
from kvorum.serve.ray_figures import EVERY

TOKENS, TICKS = 64, 80
PATIENCE = 600.0
"""Seconds that a load may take."""


@dataclass
class Asked:
    """A chat or a team's run: each attempt to read it, the last one to its end. ``run``: its id."""

    n: int
    session: str
    run: str = ""
    attempts: list[Kept] = field(default_factory=list)

    def events(self) -> list[dict[str, str]]:
        """Of a run, over all attempts."""
        return [each for one in self.attempts for each in one.events() if "id" in each]


class Load:
    """The load, once. ``homes``: whose each session is as it begins."""

    def __init__(self, up: Replicas, homes: dict[str, str]) -> None:
        self.up, self.homes = up, homes
        self.chats = [Asked(n, SESSIONS[n % len(SESSIONS)]) for n in range(CHATS)]
        self.teams = [Asked(n, SESSIONS[n % len(SESSIONS)]) for n in range(TEAMS)]
        self.ended: dict[str, float] = {}
        """When each run was read to its end."""

    def streamed(self) -> int:
        """Tokens and ticks that came so far."""
        return sum(one.count for each in (*self.chats, *self.teams) for one in each.attempts)

    def sent(self, each: Asked, body: Any, path: str, mark: str, **headers: str) -> Any:
        method = "GET" if body is None else "POST"
        return send(Kept, self.up, method, path, body, mark, x_session_id=each.session, **headers)

    async def run(self) -> None:
        """Until all is read."""
        begun = (self._begin(team) for team in self.teams)
        await asyncio.gather(*begun)
        everyone = [*map(self._chat, self.chats), *map(self._follow, self.teams)]
        await asyncio.wait_for(asyncio.gather(*everyone), PATIENCE)

    async def _chat(self, chat: Asked) -> None:
        while not (chat.attempts and chat.attempts[-1].whole):
            await asyncio.sleep(0.5 if chat.attempts else 0)
            chat.attempts.append(await self.sent(chat, chat_body(chat.n, TOKENS), CHAT, SAID))
            await chat.attempts[-1].done

    async def _begin(self, team: Asked) -> None:
        def post() -> Any:
            body = team_body(team.n, TICKS)
            return self.up.http.post("/v1/runs", json=body, headers={"x-session-id": team.session}).json()

        team.run = (await asyncio.to_thread(post))["id"]

    async def _follow(self, team: Asked) -> None:
        while True:
            behind = {"Last_Event_ID": events[-1]["id"]} if (events := team.events()) else {}
            read = await self.sent(team, None, f"/v1/runs/{team.run}/events", "event: tick", **behind)
            team.attempts.append(read)
            await read.done
            if read.status == 204 or any('"status":"finished"' in each.get("data", "") for each in read.events()):
                self.ended[team.run] = time.monotonic()
                return
            await asyncio.sleep(0.5)


async def _kill(load: Load, pid: int, wanted: int) -> float:
    """Kill a process once so much came; when that was."""
    while load.streamed() < wanted:
        await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


class Watch:
    """Asks in turn for each session, who replies. ``told``: when, the session, and who it was ('': nobody)."""

    def __init__(self, up: Replicas) -> None:
        self.up, self.told = up, list[tuple[float, str, str]]()

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            for session in SESSIONS:
                one = await send(Kept, self.up, "GET", "/v1/models", None, "data", x_session_id=session)
                await one.done
                self.told.append((time.monotonic(), session, one.replica if one.status == 200 else ""))
                await asyncio.sleep(0.1)

    async def until_new(self, old: set[str], rounds: int) -> str:
        """The replica that was not there, once all sessions were asked so many times behind its first reply."""
        while True:
            new = [at for at, (_, _, replica) in enumerate(self.told) if replica and replica not in old]
            if new and len(self.told) > new[0] + rounds * len(SESSIONS):
                return self.told[new[0]][2]
            await asyncio.sleep(0.2)


async def _killed(load: Load, pid: int, wanted: int, old: set[str]) -> tuple[float, str, Watch]:
    """The load with the kill; when it was, the new replica, and who replied meanwhile."""
    watch = Watch(load.up)
    watching = asyncio.create_task(watch.watch())
    _, at = await asyncio.gather(load.run(), _kill(load, pid, wanted))
    new = await asyncio.wait_for(watch.until_new(old, 4), PATIENCE)
    watching.cancel()
    return at, new, watch


def kill_one(folder: Path) -> None:
    """Both loads, and what they tell."""
    with replicas(MODEL, kv_tokens="32768") as up:
        homes = up.homes()
        plain = Load(up, homes)
        asyncio.run(plain.run())
        pids, began = processes(), _counted(up)
        doomed = Counter(homes[team.session] for team in plain.teams).most_common()[0][0]
        load = Load(up, homes)
        at, new, watch = asyncio.run(_killed(load, pids[doomed], plain.streamed() // 2, set(pids)))
        _runs(plain, load, at, doomed)
        _replies(load, doomed)
        (left,) = set(pids) - {doomed}
        counted = _counted(up)
        _once(load, counted[left] - began[left] + counted[new], {left, new})
        _sessions(load, watch, at, doomed, new)


def _counted(up: Replicas) -> Counter[str]:
    """Chats that each replica has replied to, as it counts them itself."""
    time.sleep(2 * EVERY)  # whoever is asked knows all figures as they are now
    found = Counter[str]()
    for line in up.http.get("/metrics").text.splitlines():
        if line.startswith("kvorum_http_requests_total{") and f'"{CHAT}"' in line:
            found[line.partition('replica="')[2].partition('"')[0]] += round(float(line.split()[-1]))
    return found


def _runs(plain: Load, load: Load, at: float, doomed: str) -> None:
    rows = load.up.select("SELECT id, status FROM runs")
    ids = {team.run for team in (*plain.teams, *load.teams)}
    ended = sum(status == "finished" for _, status in rows)
    report("stored runs that end", f"{ended} of {len(rows)}", "all", ended == len(rows))
    report("runs in the store beyond those begun", str(len(rows) - len(ids)), "0", {run for run, _ in rows} == ids)
    theirs = [team for team in load.teams if load.homes[team.session] == doomed and load.ended[team.run] > at]
    last = max(load.ended[team.run] for team in theirs) - at
    report("runs of the killed one under way; the last has ended after", f"{len(theirs)}; {last:.0f} s")
    same = sum(_ticks(one) == _ticks(other) for one, other in zip(plain.teams, load.teams, strict=True))
    report("runs with the tokens of the undisturbed load", f"{same} of {TEAMS}", "all", same == TEAMS)
    once = sum([int(each["id"]) for each in team.events()] == [*range(len(team.events()))] for team in load.teams)
    report("runs whose events came once each, in order", f"{once} of {TEAMS}", "all", once == TEAMS)


def _ticks(team: Asked) -> list[list[tuple[str, int]]]:
    bodies = [json.loads(each["data"]) for each in team.events() if each.get("event") == "tick"]
    return [[(row["worker"], row["token"]) for row in body["rows"]] for body in bodies]


def _replies(load: Load, doomed: str) -> None:
    ended = sum(chat.attempts[-1].whole and chat.attempts[-1].ends() == 1 for chat in load.chats)
    report("chats that end, once each", f"{ended} of {CHATS}", "all", ended == CHATS)
    rest = [chat for chat in load.chats if load.homes[chat.session] != doomed]
    whole = sum(len(chat.attempts) == 1 for chat in rest)
    report("chats of the living one that felt nothing of it", f"{whole} of {len(rest)}", "all", whole == len(rest))
    broken = sum(one.count > 0 and not one.whole for chat in load.chats for one in chat.attempts)
    report("chats broken off in the middle, and sent again by their clients", str(broken))


def _once(load: Load, counted: int, living: set[str]) -> None:
    replies = [one for chat in load.chats for one in chat.attempts]
    theirs = sum(one.replica in living for one in replies)
    report("replies to chats by living replicas that no client had", str(counted - theirs), "0", counted == theirs)
    refused = Counter(one.status for one in replies if not one.replica)
    report("attempts that no replica replied to, by status", str(dict(refused)))


def _sessions(load: Load, watch: Watch, at: float, doomed: str, new: str) -> None:
    theirs = [session for session, home in load.homes.items() if home == doomed]
    rest = [(session, replica) for _, session, replica in watch.told if session not in theirs]
    rest += [(one.session, reply.replica) for one in load.chats for reply in one.attempts if one.session not in theirs]
    moved = sum(replica != load.homes[session] for session, replica in rest)
    report("replies to the living one's sessions that were not its own", f"{moved} of {len(rest)}", "0", moved == 0)
    first = next(when for when, _, replica in watch.told if replica == new)
    report("the new replica replies after", f"{first - at:.0f} s")
    back = sum(watch.told[-n - 1][2] == new for n in range(len(SESSIONS)) if watch.told[-n - 1][1] in theirs)
    report("the killed one's sessions that are the new one's now", f"{back} of {len(theirs)}")
