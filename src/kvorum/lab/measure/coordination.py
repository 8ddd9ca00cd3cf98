"""Coordination, counted from a trace: repeats, division of labour, reuse of what others wrote, plans, reaction.

All of it is about values that a worker wrote of its own accord, in tokens that it picked. A value that two workers find
apart looks like reuse: compare with the same team whose blocks are hidden. Where only one worker was told a value
(``AnswerPart.holder``), reuse by another one has no other source.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import median

from kvorum.harness.dialogue_rules import word_runs
from kvorum.lab import need
from kvorum.lab.measure import announced_plans
from kvorum.lab.measure.worker_text import WorkerText, worker_rows, worker_texts
from kvorum.store.events import Event
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import AnswerPart

GRAM = 5
"""Words of a run of words that counts as repeated."""

Mentions = dict[str, dict[str, int]]
"""AnswerPart -> worker -> the tick of its first mention."""


def mentions(team: Sequence[WorkerText], parts: Sequence[AnswerPart]) -> Mentions:
    """Who wrote the right answer of which part, and first when."""
    found: Mentions = {}
    for part in parts:
        ticks = {lane.name: lane.first(part.answer) for lane in team}
        found[part.name] = {name: tick for name, tick in ticks.items() if tick is not None}
    return found


def redundancy(found: Mentions) -> float | None:
    """Share of all (worker, value) pairs beyond the first worker of each value: 0 with no repeats between workers,
    1 - 1/workers if everyone writes everything; None if nobody wrote any."""
    pairs = sum(len(who) for who in found.values())
    return None if not pairs else 1 - sum(bool(who) for who in found.values()) / pairs


def overlap(team: Sequence[WorkerText]) -> float | None:
    """The same of runs of five words: the share of (worker, run) pairs beyond the first of each run."""
    grams = [word_runs(lane.text, GRAM) for lane in team]
    pairs = sum(map(len, grams))
    return None if not pairs else 1 - len(set().union(*grams)) / pairs


def division(found: Mentions, workers: int) -> float | None:
    """1 if the values were written by one worker each and by all workers equally; 0 if every value was written by
    several, or all by one worker.

    The share of written values that one worker alone wrote, times the entropy of who wrote these over its largest
    possible value. None if nobody wrote any, or there is one worker.
    """
    written = [who for who in found.values() if who]
    if not written or workers < 2:
        return None
    alone = [next(iter(who)) for who in written if len(who) == 1]
    if len(alone) < 2:
        return 0.0
    entropy = float(need("scipy.stats").entropy(list(Counter(alone).values())))
    return len(alone) / len(written) * entropy / math.log(min(workers, len(alone)))


def reuse(found: Mentions, parts: Sequence[AnswerPart], workers: int) -> tuple[float | None, float | None]:
    """Share of (value, other worker) pairs in which the other wrote it in a later tick than the first one, and the
    median lag in ticks. Where a value has a holder, only the holder's first mention counts as the first one."""
    lags = []
    first_known = 0
    for part in parts:
        who = found.get(part.name, {})
        if not who or (part.holder and part.holder not in who):
            continue
        first = part.holder or min(who, key=who.__getitem__)
        first_known += 1
        lags += [tick - who[first] for name, tick in who.items() if name != first and tick > who[first]]
    if not first_known or workers < 2:
        return None, None
    return len(lags) / (first_known * (workers - 1)), (median(lags) if lags else None)


def spoken(events: Sequence[Event], words: str) -> int | None:
    """The tick that fed a worker the ``say`` command with ``words``; None if there was none, or it was not taken up."""
    for said in (e for e in events if e["event"] == "command" and e["kind"] == "say" and words in e.get("text", "")):
        for tick, row in worker_rows(events):
            if tick >= said["tick"] and row["worker"] == said["worker"] and words in row.get("given", ""):
                return tick
    return None


def countable(item: Item) -> list[AnswerPart]:
    """The parts whose answers can be counted where somebody writes them: a number of the text is no answer yet."""
    if item.private or item.parts_given:
        return list(item.parts)
    given = set(re.findall(r"\w+", (item.whole or item.prompt).lower()))
    return [part for part in item.parts if part.answer.lower() not in given]


def measure(events: Sequence[Event], item: Item) -> dict[str, float | None]:
    """The measures of a run, as columns of its record; None where they say nothing."""
    team = worker_texts(events)
    parts = countable(item)
    found = mentions(team, parts)
    written = sum(bool(who) for who in found.values())
    share, lag = reuse(found, parts, len(team))
    return {
        "written": written / len(parts) if parts else None,
        "named": float(written) if parts else None,
        "redundancy": redundancy(found),
        "overlap": overlap(team),
        "division": division(found, len(team)),
        "reuse": share,
        "reuse_lag": lag,
        **announced_plans.measure(team, item.parts, found),
    }
