"""For tests of programs in which workers talk: engines whose tokens are characters, and words put into workers' mouths,
so that what a program does with blocks and views can be foreseen.

What is held against an oracle runs on a tiny float64 model (``exact``), what is held against itself on one in float32
(``engine``), all else without one (``fake``)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from engines import engine_of
from kvorum import Budget, Engine, Program, Result, Run, Sampling, Task
from kvorum.backends.fake import FakeBackend
from kvorum.engine.row import CheckedRow
from kvorum.engine.tick_result import TickResult
from kvorum.kv import Block, Gap, Span
from kvorum.runs.start import arun
from kvorum.store.events import note_data
from oracle import Oracle, widen

T = TypeVar("T")
VOCAB = 128
END = 3
GREEDY = Sampling(temperature=0.0)
BABBLE = Sampling(temperature=0.0, banned=(END,))


class Ascii:
    """One token for each ASCII character; ETX ends a text."""

    chat_template = None
    eos_token_id = END
    all_special_ids = (END,)

    def __call__(self, text: str, add_special_tokens: bool = False, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [min(ord(mark), VOCAB - 1) for mark in text]}

    def get_vocab(self) -> dict[str, int]:
        return {chr(token): token for token in range(VOCAB)}

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(chr(token) for token in ids if token != END)


def _model(dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=16384,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    nn.Module.to(model, dtype)
    model.eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3) if weight.ndim > 1 else weight.normal_(1.0, 0.1)
    return model


@cache
def engine() -> Engine:
    """A tiny model in float32, with the kernels that are there."""
    return engine_of("ascii", lambda: _model(torch.float32), Ascii(), kv_tokens=65536)


@cache
def exact() -> Engine:
    """A tiny model in float64, which plain torch attends to: four times as long."""
    return Engine(widen(_model(torch.float64)), Ascii(), kv_tokens=65536)


@cache
def fake() -> Engine:
    """The same characters and no model."""
    return Engine(FakeBackend(VOCAB, kv_tokens=65536), Ascii())


def scripts(words: Mapping[str, Sequence[str]]) -> Callable[[Run], None]:
    """A ``control`` that makes each worker say these texts, one after the other, then whatever the model likes."""

    def control(run: Run) -> None:
        for worker in run.workers:
            line = "".join(text + chr(END) for text in words.get(worker.name, []))

            def allow(logits: Tensor, worker: Any = worker, line: str = line) -> Tensor | None:
                at = len(worker.ids)
                return torch.arange(VOCAB) == ord(line[at]) if at < len(line) else None

            worker.allow = allow

    return control


def solve(
    program: Program,
    prompt: str | Task,
    words: Mapping[str, Sequence[str]] | None = None,
    *,
    on: Engine | None = None,
    **options: Any,
) -> tuple[Result, Run]:
    held: list[Run] = []
    say = scripts(words or {})

    def control(run: Run) -> None:
        held.append(run)
        say(run)

    options = {"budget": Budget(ticks=6000), "sampling": GREEDY, **options}
    return (on or fake()).run(program, prompt, control=control, **options), held[0]


def notes(result: Result, kind: str) -> list[dict[str, Any]]:
    events = result.trace.events
    return [note_data(event) for event in events if event["event"] == "note" and event["kind"] == kind]


class Record:
    """Ticks of an engine as they happen, to be judged by the dense oracle afterwards."""

    def __init__(self, monkeypatch: Any) -> None:
        self.oracle = Oracle(exact().model)
        self.ends: list[tuple[int, Tensor]] = []
        whole = exact().executor.run

        def tick(rows: Sequence[CheckedRow], hidden: bool = False) -> TickResult:
            told = []
            for row in rows:
                items = [(i.block.uid, i.lo, i.hi) if isinstance(i, Span) else len(i) for i in row.view.items]
                told.append((items, row.ids))
            numbers = self.oracle.tick(told)
            result = whole(rows, hidden)
            self.ends += [(new[-1], line) for new, line in zip(numbers, result.output.logits, strict=True)]
            return result

        monkeypatch.setattr(exact().executor, "run", tick)

    def error(self) -> float:
        """The largest difference of any logit, of any row, from the oracle's."""
        logits = self.oracle.solve().logits
        return max(float((logits[number] - line).abs().max()) for number, line in self.ends)


def outcome(result: Result) -> dict[str, Any]:
    """The answer of a program that answers in JSON."""
    assert result.answer is not None
    return dict(json.loads(result.answer))


def block_of(item: Span | Gap) -> Block:
    """The block of a view's item, which must not be a gap."""
    assert isinstance(item, Span)
    return item.block


def thread(result: Result, run: Run, name: str) -> str:
    """A worker's whole thread as text, from what it was told and what it picked; rules come with the first."""
    said = "".join(chr(token) for token in next(w for w in run.workers if w.name == name).ids).split(chr(END))
    told = [note["text"] for note in notes(result, "told") if note["worker"] == name]
    return "".join(f"\n\n{question}\n\n{answer}" for question, answer in zip(told, said, strict=False))[2:]


@torch.no_grad()
def dense(ids: Sequence[int]) -> Tensor:
    """Logits after the last token of one plain causal sequence, by the oracle."""
    oracle = Oracle(exact().model)
    oracle.tick([([("sequence", 0, None)], list(ids))])
    return oracle.solve().logits[-1]


def together(runs: Sequence[Awaitable[T]]) -> list[T]:
    async def gather() -> list[T]:
        return list(await asyncio.gather(*runs))

    return asyncio.run(gather())


def start(program: Program, prompt: str, *, on: Engine | None = None, **options: Any) -> Coroutine[Any, Any, Result]:
    return arun(on or fake(), program, prompt, **{"budget": Budget(ticks=6000), "sampling": GREEDY, **options})
