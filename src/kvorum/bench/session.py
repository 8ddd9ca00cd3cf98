"""One run of a bench: which processes are started, what is asked of them, in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from kvorum.bench import quality
from kvorum.bench.compare import Comparison, Key, fitting, interleaved, own_room, spare, team_room
from kvorum.bench.engines.process import Process
from kvorum.bench.engines.registry import left_out
from kvorum.bench.engines.server import Server
from kvorum.bench.engines.side import SideOptions, tokens
from kvorum.bench.result import OURS, About, Asked, Attention, Bench, Timing
from kvorum.bench.start import first_token, starts
from kvorum.errors import BenchError

ALSO = ("long", "spans", "attention", "teams", "quality", "start")

LONG, LONG_SECONDS = 8192, 1200.0
SPANS, SPANS_CONTEXT, SPANS_WORKERS = (1, 16, 64, 256), 2048, 4
ATTENTION_CONTEXT, ATTENTION_WORKERS = 4096, (1, 8)
TEAMS, TEAM_WORKERS, TEAM_CONTEXT = 64, 4, 64
STARTS = 3


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
            about = self.about = ours.ask(Server.about, model=asked.model)
            threads = about.machine.threads
            sides = {OURS: ours}
            for peer in asked.peers:
                try:
                    if (why := left_out(peer, asked.model)) is not None:
                        raise BenchError(why)
                    sides[peer] = open_.enter_context(self._start(peer, threads))
                except BenchError as error:
                    bench.left_out.append(f"{peer}: {error}")
                    self.progress(f"{peer} is left out: {error}")
            bench.loaded = {name: side.memory for name, side in sides.items()}
            Comparison(sides, asked, about, bench, self.progress).grid()
            if "long" in asked.also:
                self.long(sides, about)
            for name, side in sides.items():
                if name != OURS:
                    side.end()
            if "spans" in asked.also:
                self.progress("the same tokens in many spans")
                self.spans(ours, about.vocab)
            if "attention" in asked.also:
                self.progress("attention alone")
                self.attention(ours, about.vocab)
            if "quality" in asked.also:
                self.progress("quality of the fast mode")
                self._quality(ours, threads)
        if "teams" in asked.also:
            self.progress(f"{TEAMS} teams of {TEAM_WORKERS} in one engine")
            self._teams(threads)
        if "start" in asked.also:
            self.progress("first token of kvorum solve")
            bench.start = first_token(asked, STARTS)
            self.progress("first tokens of all commands")
            bench.starts = starts(asked, STARTS)

    def long(self, sides: Mapping[str, Process], about: About) -> None:
        """One worker behind 8,192 tokens, or as many as the model can read, beside llama.cpp, with more time for it."""
        context = fitting(LONG, about.longest, spare(self.asked.repeats))
        if context in self.bench.contexts():
            return
        left = {name: side for name, side in sides.items() if side.alive and name.startswith((OURS, "llama.cpp"))}
        limit = max(self.asked.limit, LONG_SECONDS)
        asked = replace(self.asked, contexts=(context,), workers=(1,), limit=limit)
        Comparison(left, asked, about, self.bench, self.progress).grid()

    def spans(self, ours: Process, vocab: int) -> None:
        """Four workers behind 2,048 tokens in one closed span and in many, in turns."""
        ours.ask(Server.read, ids=tokens(vocab, SPANS_CONTEXT))
        for count in SPANS:
            ours.ask(Server.open, key=count, kind="spans", count=count, workers=SPANS_WORKERS)
        found = self._in_turns(ours, SPANS)
        self.bench.spans = {count: Timing.of(seconds) for count, seconds in found.items()}

    def attention(self, ours: Process, vocab: int) -> None:
        """What 4,096 shared tokens add to a tick: each round's tick behind them less that behind one token."""
        for length in (1, ATTENTION_CONTEXT):
            ours.ask(Server.read, ids=tokens(vocab, length))
            for count in ATTENTION_WORKERS:
                ours.ask(Server.open, key=(count, length), workers=count, spare=spare(self.asked.repeats))
        keys = [(count, length) for count in ATTENTION_WORKERS for length in (1, ATTENTION_CONTEXT)]
        found = self._in_turns(ours, keys)
        for count in ATTENTION_WORKERS:
            pairs = zip(found[count, ATTENTION_CONTEXT], found[count, 1], strict=False)
            added = Timing.of([far - near for far, near in pairs])
            self.bench.attention.append(Attention(ATTENTION_CONTEXT, count, added))

    def _in_turns(self, ours: Process, keys: Sequence[Key]) -> dict[Key, list[float]]:
        """Seconds of the ticks of open jobs, which are closed."""
        jobs = {key: partial(ours.ask, Server.tick, key=key) for key in keys}
        found = interleaved(jobs, self.asked.repeats, self.asked.limit)
        for key in keys:
            ours.ask(Server.close, key=key)
        return found

    def _quality(self, ours: Process, threads: int) -> None:
        if self.asked.exact:
            self.bench.left_out.append("the loss of the fast mode: --exact is the exact mode")
            return
        with self._start(OURS, threads, exact=True, kv_tokens=quality.TOKENS + 64) as exact:
            truth = exact.ask(Server.score, most=quality.TOKENS, at_once=quality.AT_ONCE[0])
        for at_once in quality.AT_ONCE:
            fast = ours.ask(Server.score, most=quality.TOKENS, at_once=at_once)
            self.bench.quality.append(quality.loss(truth, fast, at_once))

    def _teams(self, threads: int) -> None:
        """Many teams in one engine, in a process that has not used its cache yet, so that its growth tells."""
        own = 16 * (2 + self.asked.repeats // 16)
        room = TEAMS * (TEAM_CONTEXT + 16 + TEAM_WORKERS * own)
        with self._start(OURS, threads, kv_tokens=room) as fresh:
            self.bench.crowd = fresh.ask(
                Server.crowd, teams=TEAMS, workers=TEAM_WORKERS, context=TEAM_CONTEXT, repeats=self.asked.repeats
            )

    def _start(self, side: str, threads: int | None, *, exact: bool = False, kv_tokens: int = 0) -> Process:
        self.progress(f"loading {self.asked.model} into {side}")
        asked = replace(self.asked, exact=True, kv_dtype="auto") if exact else self.asked
        return Process(SideOptions(side, asked, threads, kv_tokens or self._room()))

    def _room(self) -> int:
        """Tokens of kvorum's cache that the blocks of a run take at once, with pages that are not full."""
        asked, own = self.asked, own_room(self.asked.repeats)
        room = team_room(max(*asked.contexts, LONG if "long" in asked.also else 0), max(asked.workers), asked.repeats)
        if "attention" in asked.also:
            room += ATTENTION_CONTEXT + 2 * sum(ATTENTION_WORKERS) * own
        if "spans" in asked.also:
            room += 8 * SPANS_CONTEXT + len(SPANS) * SPANS_WORKERS * own
        return room
