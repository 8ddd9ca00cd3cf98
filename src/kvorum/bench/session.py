"""One run of a bench: which processes are started, what is asked of them, in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from kvorum.bench import growth, quality, start
from kvorum.bench.compare import Comparison
from kvorum.bench.result import About, Bench
from kvorum.bench.sides.messages import EngineFigures, Machine, Score
from kvorum.bench.sides.process import Process
from kvorum.bench.sides.registry import OURS, left_out
from kvorum.errors import BenchError

ALSO = ("spans", "attention", "teams", "quality", "start")

ATTENTION_CONTEXT, ATTENTION_WORKERS = 4096, (1, 8)
TEAMS, TEAM_WORKERS, TEAM_CONTEXT = 64, 4, 64
STARTS = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """What to measure. ``repeats``, ``limit`` (seconds) and ``heavy`` (tokens) as in `Comparison`.

    ``also``: of ALSO."""

    model: str
    contexts: tuple[int, ...]
    workers: tuple[int, ...]
    peers: tuple[str, ...]
    repeats: int
    limit: float
    heavy: int
    exact: bool
    kv_dtype: str
    also: frozenset[str]


class Session:
    """Fills ``bench`` and ``about`` as it goes, so that a run that is stopped has what was measured before."""

    def __init__(self, asked: Asked, progress: Callable[[str], None]) -> None:
        self.asked = asked
        self.progress = progress
        self.bench = Bench()
        self.about: About | None = None
        """Known as soon as kvorum's own side is loaded."""

    def run(self) -> None:
        """Measure all that is asked for.

        Raises:
            BenchError: kvorum's own side failed.
        """
        asked, bench = self.asked, self.bench
        with contextlib.ExitStack() as open_:
            ours = open_.enter_context(self._start(OURS, None))
            machine, figures = ours.ask(Machine, "machine"), ours.ask(EngineFigures, "about")
            self.about = About(
                model=asked.model,
                machine=machine,
                engine=figures.engine,
                vocab=figures.vocab,
                weight_bytes=figures.weight_bytes,
                bytes_per_token=figures.bytes_per_token,
            )
            sides = {OURS: ours}
            for peer in asked.peers:
                try:
                    if (why := left_out(peer, asked.model)) is not None:
                        raise BenchError(why)
                    sides[peer] = open_.enter_context(self._start(peer, machine.threads))
                except BenchError as error:
                    bench.left_out.append(f"{peer}: {error}")
                    self.progress(f"{peer} is left out: {error}")
            bench.loaded = {name: side.memory for name, side in sides.items()}
            comparison = Comparison(
                sides,
                bench,
                vocab=figures.vocab,
                bytes_per_token=figures.bytes_per_token,
                repeats=asked.repeats,
                limit=asked.limit,
                heavy=asked.heavy,
                progress=self.progress,
            )
            comparison.grid(asked.contexts, asked.workers)
            for name, side in sides.items():
                if name != OURS:
                    side.end()
            self._alone(ours, self.about)
        self._apart(machine.threads)

    def _alone(self, ours: Process, about: About) -> None:
        """What kvorum's process measures without its peers."""
        asked = self.asked
        if "spans" in asked.also:
            self.progress("the same tokens in many spans")
            growth.spans(ours, self.bench, vocab=about.vocab, repeats=asked.repeats, limit=asked.limit)
        if "attention" in asked.also:
            self.progress("attention alone")
            growth.attention(
                ours,
                self.bench,
                vocab=about.vocab,
                context=ATTENTION_CONTEXT,
                workers=ATTENTION_WORKERS,
                repeats=asked.repeats,
                limit=asked.limit,
            )
        if "quality" in asked.also:
            self.progress("quality of the fast mode")
            self._quality(ours, about.machine.threads)

    def _quality(self, ours: Process, threads: int) -> None:
        if self.asked.exact:
            self.bench.left_out.append("the loss of the fast mode: --exact is the exact mode")
            return
        with self._start(OURS, threads, exact=True, kv_tokens=quality.TOKENS + 64) as exact:
            truth = exact.ask(Score, "score", most=quality.TOKENS, at_once=quality.AT_ONCE[0])
        for at_once in quality.AT_ONCE:
            fast = ours.ask(Score, "score", most=quality.TOKENS, at_once=at_once)
            self.bench.quality.append(quality.loss(truth, fast, at_once))

    def _apart(self, threads: int) -> None:
        """What needs processes of its own."""
        asked = self.asked
        if "teams" in asked.also:
            self.progress(f"{TEAMS} teams of {TEAM_WORKERS} in one engine")
            own = 16 * (2 + asked.repeats // 16)
            room = TEAMS * (TEAM_CONTEXT + 16 + TEAM_WORKERS * own)
            with self._start(OURS, threads, kv_tokens=room) as fresh:
                growth.crowd(
                    fresh, self.bench, teams=TEAMS, workers=TEAM_WORKERS, context=TEAM_CONTEXT, repeats=asked.repeats
                )
        if "start" in asked.also:
            self.progress("first token of kvorum solve")
            self.bench.start = start.first_token(asked.model, STARTS, exact=asked.exact)

    def _start(self, side: str, threads: int | None, *, exact: bool = False, kv_tokens: int = 0) -> Process:
        self.progress(f"loading {self.asked.model} into {side}")
        longest = max(self.asked.contexts) + 2 * self.asked.repeats + 64
        return Process(
            side,
            model=self.asked.model,
            threads=threads,
            kv_tokens=kv_tokens or self._room(),
            longest=longest,
            exact=exact or self.asked.exact,
            kv_dtype="auto" if exact else self.asked.kv_dtype,
        )

    def _room(self) -> int:
        """Tokens of kvorum's cache that the blocks of a run take at once, with pages that are not full."""
        asked, own = self.asked, 64 + 2 * self.asked.repeats
        room = 2 * max(asked.contexts) + max(asked.workers) * own + 4096
        if "attention" in asked.also:
            room += ATTENTION_CONTEXT + 2 * sum(ATTENTION_WORKERS) * own
        if "spans" in asked.also:
            room += 8 * growth.SPANS_CONTEXT + len(growth.SPANS) * growth.SPANS_WORKERS * own
        return room
